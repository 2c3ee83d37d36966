import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { create_session } from "../../boot/session.ts";
import { boot } from "../../boot/start_kernel.ts";
import { TEST_MACHINE, garbage } from "../lib/machine.ts";
import { mem_map_state } from "../../mm/page.ts";
const data = fileURLToPath(new URL("../data", import.meta.url));
it("x", async () => {
  let out = "";
  boot({ machine: TEST_MACHINE, garbage: garbage(7), loglevel: 0 });
  const s = create_session({terminal:false,json:false,width:()=>80,height:()=>24,write:(t)=>void(out+=t),write_error:(t)=>void(out+="E:"+t),ask:()=>Promise.resolve(undefined),watching(){}});
  for (const l of ["kill crond syslogd getty", "run 20", 
    `faultsweep --sample 50 'replay ${data}/ftrace/trace.txt'`,
    `faultsweep --sample 50 'replay ${data}/traces/fork-shell.trace.gz --stop 400'`,"validate",
    `faultsweep --sample 50 'replay ${data}/traces/fork-shell.trace.gz --pages --stop 9000'`,"validate",
    `faultsweep --sample 50 'replay ${data}/malloclab/lsr.rep.gz --malloc --stop 200; replay --end'`,"validate"]) {
    await s.run(l);
    out += `mem_map ${mem_map_state.mem_map.toString(16)} ${mem_map_state.max_pfn}\n`;
  }
  console.log(out.slice(0, 6000));
});
