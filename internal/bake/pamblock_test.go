// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A verdict is what a module returns.
type verdict string

const (
	success verdict = "success"
	denied  verdict = "auth_err"
	ignored verdict = "ignore"
	missing verdict = "module_unknown" // its file is not there
)

// authenticate is what Linux-PAM makes of a stack, after _pam_dispatch_aux.
func authenticate(t *testing.T, stack []string, of func(module string, args []string) verdict) bool {
	t.Helper()
	simple := map[string]string{
		"required":   "[success=ok new_authtok_reqd=ok ignore=ignore default=bad]",
		"requisite":  "[success=ok new_authtok_reqd=ok ignore=ignore default=die]",
		"sufficient": "[success=done new_authtok_reqd=done default=ignore]",
		"optional":   "[success=ok new_authtok_reqd=ok default=ignore]",
	}
	const undefined, positive, negative = 0, 1, 2
	impression, accepted := undefined, false
	for i := 0; i < len(stack); i++ {
		_, control, module, args := pamEntry{text: stack[i]}.parts()
		if c, ok := simple[control]; ok {
			control = c
		}
		v := of(module, args)
		action := "bad"
		for _, word := range []string{"default", string(v)} { // the named one wins
			for _, f := range strings.Fields(strings.Trim(control, "[]")) {
				if key, value, _ := strings.Cut(f, "="); key == word {
					action = value
				}
			}
		}
		switch action {
		case "ignore":
		case "ok", "done":
			if impression == undefined || impression == positive && accepted {
				impression, accepted = positive, v == success
			}
			if action == "done" && impression == positive {
				return accepted
			}
		case "bad", "die":
			impression, accepted = negative, false
			if action == "die" {
				return false
			}
		default:
			n, err := strconv.Atoi(action)
			if err != nil {
				t.Fatalf("%q: unknown action %q", stack[i], action)
			}
			if i+n >= len(stack) {
				return false // a jump beyond the end
			}
			i += n
		}
	}
	return impression == positive && accepted
}

// Whatever the modules answer, and whichever line of the block is lost, nothing but
// a right code lets a user in. With the block whole, it does.
func TestBlockFailsClosed(t *testing.T) {
	block := testBlock(t).entries
	stacks := map[string][]string{"whole": block}
	for i := range block {
		stacks["cut before line "+strconv.Itoa(i+1)] = block[:i]
		stacks["without line "+strconv.Itoa(i+1)] = slices.Delete(slices.Clone(block), i, i+1)
	}
	parts := []string{"preauth", "authfail", "authsucc"}
	verdicts := []verdict{success, denied, ignored, missing}
	for name, stack := range stacks {
		for code := range verdicts {
			for n := range len(verdicts) * len(verdicts) * len(verdicts) {
				tally := []verdict{verdicts[n%4], verdicts[n/4%4], verdicts[n/16]}
				in := authenticate(t, stack, func(module string, args []string) verdict {
					if module == target.PAMModule {
						return verdicts[code]
					}
					for i, p := range parts {
						if slices.Contains(args, p) {
							return tally[i]
						}
					}
					return success
				})
				asked := slices.ContainsFunc(stack, func(e string) bool { return strings.Contains(e, target.PAMModule) })
				if in && (!asked || verdicts[code] != success) {
					t.Errorf("%s: code %s, tally %s: in", name, verdicts[code], tally)
				}
				if usual := slices.Equal(tally, []verdict{success, ignored, success}); name == "whole" && usual && in != (verdicts[code] == success) {
					t.Errorf("%s: code %s, tally %s: in %v", name, verdicts[code], tally, in)
				}
				if name == "whole" && slices.Contains(tally, missing) && in {
					t.Errorf("code %s, tally %s: in", verdicts[code], tally)
				}
			}
		}
	}
}

// What the block says does not depend on faillock.conf(5).
func TestBlockIsExplicit(t *testing.T) {
	for _, e := range testBlock(t).entries {
		_, control, module, args := pamEntry{text: e}.parts()
		if control == "sufficient" || control == "optional" {
			t.Errorf("%q", e)
		}
		if module == target.PAMTally && !slices.Contains(args, "conf=/dev/null") {
			t.Errorf("%q takes options from faillock.conf", e)
		}
		if module == target.PAMModule && (slices.Contains(args, "nullok") || !slices.Contains(args, "user=root")) {
			t.Errorf("%q", e)
		}
	}
}

// The numbers are those of the policy, and an option that the module does not have
// is not used.
func TestBlockFits(t *testing.T) {
	for _, test := range []struct{ rate, module, want, not string }{
		{policy.RateStandard, "x nodelay x", " deny=3 fail_interval=30 unlock_time=30 even_deny_root root_unlock_time=30 conf=/dev/null nodelay\n", ""},
		{policy.RateStrict, "x nodelay x", " deny=5 fail_interval=300 unlock_time=300 even_deny_root root_unlock_time=300 conf=/dev/null nodelay\n", ""},
		{policy.RateStandard, "PAM 1.4", " deny=3 fail_interval=30 unlock_time=30 even_deny_root root_unlock_time=30\n", "conf="},
	} {
		m := newMachine(t)
		m.put(tally, test.module, 0o644)
		f := &facts{policy: (&policy.Policy{RateLimit: test.rate}).WithDefaults(), arch: "amd64"}
		block, err := f.block(m.Target)
		if err != nil || !strings.Contains(block.text, test.want) || test.not != "" && strings.Contains(block.text, test.not) {
			t.Errorf("%+v: %v\n%s", test, err, block.text)
		}
	}
}
