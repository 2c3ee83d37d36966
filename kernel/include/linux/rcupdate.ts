/** RCU: frees after everybody who may still read has gone. */
export { kfree_rcu } from "../../../mm/kfree_rcu.ts";
export {
  RcuHead,
  rcu_barrier,
  rcu_read_lock,
  rcu_read_unlock,
  synchronize_rcu,
  type RcuHeadPtr,
} from "../../lib/rcu.ts";
