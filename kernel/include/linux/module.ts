/** What makes a file a module. */
import { NULL } from "../../../hal/addr.ts";
import type { ModulePtr } from "../../lib/owner.ts";

/** The module itself: the loader puts its address here. */
export const THIS_MODULE: ModulePtr = NULL;
export { pr_alert, pr_debug, pr_emerg, pr_err, pr_info, pr_notice, pr_warn } from "../../lib/printk.ts";
export {
  MODULE_AUTHOR, MODULE_DESCRIPTION, MODULE_LICENSE, MODULE_VERSION, module_exit, module_init, module_put, try_module_get,
} from "../../module.ts"; // prettier-ignore
export { module_param } from "../../module_param.ts";
export { EXPORT_SYMBOL, symbol_get, symbol_put } from "../../module_symbol.ts";
