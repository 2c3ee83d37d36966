/** Messages of the kernel's log. */
export {
  KERN_ALERT, KERN_CRIT, KERN_DEBUG, KERN_EMERG, KERN_ERR, KERN_INFO, KERN_NOTICE, KERN_WARNING, pr_alert, pr_debug,
  pr_emerg, pr_err, pr_info, pr_notice, pr_warn, printk,
} from "../../lib/printk.ts"; // prettier-ignore
export { dump_stack } from "../../lib/dump_stack.ts";
