/** Memory of which each CPU has its own copy. */
export { alloc_percpu, free_percpu } from "../../../mm/percpu.ts";
export { per_cpu_ptr } from "../../../hal/image.ts";
export { nr_cpu_ids, smp_processor_id, this_cpu_ptr } from "../../../hal/cpu.ts";
