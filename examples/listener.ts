import { px } from "../hal/addr.ts";
import { events } from "../hal/events.ts";
import { PRESETS } from "../hal/machine.ts";
import { boot, power_off } from "../boot/start_kernel.ts";
events.on("slab:new", ({ cache, slab }) => console.log(`${cache}: a new slab at ${px(slab)}`));
events.on("task:fork", ({ pid, comm }) => console.log(`${comm} forked ${pid}`));
boot({ machine: PRESETS.textbook! });
console.log(power_off());
