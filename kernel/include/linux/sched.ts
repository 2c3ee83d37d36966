/** Tasks. */
export { TaskStruct, current_task, for_each_process, type TaskPtr } from "../../task.ts";
export { wake_up_process } from "../../sched.ts";
export { find_task_by_pid } from "../../pid.ts";
