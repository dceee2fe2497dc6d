"""Small faults put into vpnd one at a time: a test must fail for each.

`make mutants SEED=1 COUNT=300` takes a sample that the seed repeats, in copies of the last commit below
`build/`; with `ONLY="vpnd/ike vpnd/tunnel"`, of these modules alone. cosmic-ray makes the mutants; this
package takes the sample, picks the tests that reach the changed line, and keeps each result, so that an
interrupted run goes on where it was.
"""
