// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestRecoveryPage holds docs/recovery.md to the table: one section per kind, in its order,
// with the text as it is shown, the command, and the ways to become root.
func TestRecoveryPage(t *testing.T) {
	b, err := os.ReadFile("../../docs/recovery.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	var codes []string
	for i, section := range strings.Split(page, "\n## ")[1:] {
		code, text, _ := strings.Cut(section, "\n")
		if strings.Contains(code, " ") {
			continue // no problem
		}
		codes = append(codes, code)
		k := kindOf(code)
		shown := "problem: " + k.Code + ": " + k.What + "\n"
		if k.Notice {
			shown = k.Text()
		}
		for _, want := range []string{shown, k.Fix, "- **Console and guest agent:** ", "- **Rescue system:** "} {
			if !strings.Contains(text, want) {
				t.Errorf("section %d, %s, lacks %q", i, code, want)
			}
		}
	}
	var want []string
	for _, k := range Kinds {
		want = append(want, k.Code)
	}
	if !slices.Equal(codes, want) {
		t.Errorf("sections %q, want %q", codes, want)
	}
	_, keys, _ := strings.Cut(page, "## The output of ")
	for _, v := range []any{Status{}, UserStatus{}, Problem{}, RateLimit{}, Delivery{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.IsExported() && !strings.Contains(keys, "`"+key+"`") {
				t.Errorf("%T: key %q is not described", v, key)
			}
		}
	}
}

// TestKinds: every problem has one code and a command, and what strangers see names no
// user, no recipient and no path of a secret.
func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds {
		if k.What == "" || k.Fix == "" || seen[k.Code] {
			t.Errorf("%+v: What, Fix and a code of its own are needed", k)
		}
		seen[k.Code] = true
		if explained := strings.Contains(k.Text(), "totpctl keygen"); explained != strings.Contains(k.Fix, "age1...") {
			t.Errorf("%s: the notice explains age1...: %v", k.Code, explained)
		}
		for _, bad := range []string{"age1q", "alice", "AGE-SECRET"} {
			if strings.Contains(k.Text(), bad) {
				t.Errorf("%s: the notice names %q", k.Code, bad)
			}
		}
	}
	for _, err := range []error{ErrUnknownID, ErrNoRecipient, ErrLoginKey, ErrNoAccount, ErrRootDenied, errRecipients, errCardLost, errStateMode, errPolicy, os.ErrInvalid} {
		if code := codeOf(err); !seen[code] {
			t.Errorf("%v has the code %q, which is not in the table", err, code)
		}
	}
}
