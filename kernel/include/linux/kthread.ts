/** Kernel threads: a step function that is called again and again, and says RUN, SLEEP or EXIT. */
export {
  EXIT, RUN, SLEEP, kthread_create, kthread_run, kthread_should_stop, kthread_stop, type Step,
} from "../../kthread.ts"; // prettier-ignore
export { wake_up_process } from "../../sched.ts";
