/** Tests that run in the kernel. */
export {
  KUNIT_ASSERT_EQ, KUNIT_ASSERT_NE, KUNIT_ASSERT_NOT_NULL, KUNIT_ASSERT_TRUE, KUNIT_CASE_PARAM, KUNIT_EXPECT_EQ,
  KUNIT_EXPECT_FALSE, KUNIT_EXPECT_GE, KUNIT_EXPECT_GT, KUNIT_EXPECT_LE, KUNIT_EXPECT_LT, KUNIT_EXPECT_NE,
  KUNIT_EXPECT_NOT_NULL, KUNIT_EXPECT_NULL, KUNIT_EXPECT_STREQ, KUNIT_EXPECT_TRUE, KUNIT_FAIL, kunit_kzalloc, kunit_skip,
  kunit_suite_exit, kunit_test_suite, type Kunit, type KunitCase, type KunitCases,
} from "../../kunit.ts"; // prettier-ignore
