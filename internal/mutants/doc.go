// Package mutants guards the guards: it puts bugs that other systems really had into the session machine, one at a time,
// and checks that the simulation (TestSim of reconnect/internal/session) finds each within 2,000 seeds. So it holds no
// claim of docs/delivery.md by itself; it holds that the tests of D1, D2 and D3, and in part those of D4 and D6, fail when
// the claim is false. Production code knows nothing of it: a mutant is a replacement of a few lines, kept in
// table_test.go and handed to the compiler by go test -overlay.
//
//	make mutants                                                                              all of them
//	TOWLINE_MUTANTS=1 go test -count=1 -v -run '^TestMutants$/each/^epoch-not-raised$' ./internal/mutants   one
//
// How to read a failure:
//
//   - "is there 0 times": the code has changed below the mutant. Bring its old text up to date; if the code that it broke is
//     gone, find the place where the same bug would be made today.
//   - "does not compile": the same, for its new text.
//   - "survived": the simulation has become blind to a bug that it saw before. Do not drop the mutant: find out what the
//     simulation no longer does, or does not check.
//   - "the code without a bug fails": nothing of the rest counts before that is mended. It says what fails.
//
// A mutant that names a test is one which the simulation cannot see, because both of its sides are honest and its driver
// is not the one of package reconnect: that test must fail then.
package mutants
