/** Wait queues. */
export { WaitQueueHead, type WaitQueuePtr } from "../../task.ts";
export { init_waitqueue_head, wait_on, waitqueue_active, wake_up } from "../../wait.ts";
