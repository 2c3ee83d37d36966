// Tests of ring, run in the kernel: modprobe ring_kunit; kunit
import {
  KUNIT_ASSERT_NOT_NULL,
  KUNIT_CASE_PARAM,
  KUNIT_EXPECT_EQ,
  kunit_suite_exit,
  kunit_test_suite,
} from "kheap/linux/kunit";
import { MODULE_LICENSE, module_exit, module_init, symbol_get } from "kheap/linux/module";
import { ENOMEM } from "kheap/linux/errno";
import { NULL, static_data } from "kheap/linux/types";
import type { ring_pop, ring_push } from "./ring.ts";

MODULE_LICENSE("MIT");
const my = static_data("ring_kunit", { suite: "*kunit_suite" });

module_init(() => {
  const push = symbol_get<typeof ring_push>("ring_push");
  const pop = symbol_get<typeof ring_pop>("ring_pop");
  my.suite = kunit_test_suite("ring", {
    first_in_first_out(test) {
      KUNIT_ASSERT_NOT_NULL(test, push);
      while (pop!() >= 0);
      for (const number of [10, 20, 30]) KUNIT_EXPECT_EQ(test, push!(number), 0);
      for (const number of [10, 20, 30, -1]) KUNIT_EXPECT_EQ(test, pop!(), number);
    },
    holds_eight: KUNIT_CASE_PARAM([7, 8, 9, 20], (test, pushed) => {
      while (pop!() >= 0);
      for (let number = 0; number < pushed; number++) push!(number);
      KUNIT_EXPECT_EQ(test, pop!(), Math.max(0, pushed - 8));
    }),
  });
  return my.suite === NULL ? -ENOMEM : 0;
});

module_exit(() => kunit_suite_exit(my.suite));
