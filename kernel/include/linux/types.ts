/** Addresses, structs, and the data that a module keeps in RAM. */
export { NULL, PAGE_SIZE, px, type CpuId, type NodeId, type Obj, type Ptr, type Virt } from "../../../hal/addr.ts";
export { array, struct } from "../../../hal/struct.ts";
export { module_per_cpu_data as per_cpu_data, module_static_data as static_data } from "../../module.ts";
