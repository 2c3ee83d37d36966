/** Being told of power-off and of memory running out. */
export {
  NOTIFY_BAD, NOTIFY_DONE, NOTIFY_OK, NOTIFY_STOP_MASK, NotifierBlock, SYS_POWER_OFF, register_oom_notifier, register_reboot_notifier,
  unregister_oom_notifier, unregister_reboot_notifier, type NotifierPtr,
} from "../../notifier.ts"; // prettier-ignore
