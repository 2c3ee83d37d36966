/** Work that a kernel thread does later, where it may sleep. */
export {
  DelayedWork, INIT_DELAYED_WORK, INIT_WORK, WorkStruct, alloc_workqueue, cancel_delayed_work_sync, cancel_work_sync,
  destroy_workqueue, flush_work, flush_workqueue, queue_delayed_work, queue_work, schedule_delayed_work, schedule_work,
  work_pending, type DelayedWorkPtr, type WorkPtr, type WorkqueuePtr,
} from "../../workqueue.ts"; // prettier-ignore
