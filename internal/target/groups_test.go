// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"slices"
	"testing"
)

func TestGroupsOf(t *testing.T) {
	tt := open(t)
	alice := User{Name: "alice", GID: 1000}
	if got, err := tt.GroupsOf(alice); got != nil || err != nil {
		t.Errorf("without a file: %q, %v", got, err)
	}
	put(t, tt, Group, "root:x:0:\nalice:x:1000:\nops:x:2000:bob,alice\ndev:x:2001:alicex,xalice\nbroken\nodd:x:y:alice\n:x:1000:\n", 0o644)
	if got, err := tt.GroupsOf(alice); !slices.Equal(got, []string{"alice", "ops", "odd"}) || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
