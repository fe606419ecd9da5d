// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/access"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestPrintReset: an envelope that nothing delivers is printed, after a line that says what
// to do with it. The first line reports the end of an older secret, if there was one.
func TestPrintReset(t *testing.T) {
	tg, err := target.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer tg.Close()
	_, recipient, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := seal.ParseRecipient(recipient)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := seal.Seal([]byte("card"), []seal.Recipient{reader})
	if err != nil {
		t.Fatal(err)
	}
	for name, res := range map[string]*enroll.ResetResult{
		"no channel":                       {Ready: true},
		"no channel, not ready":            {},
		"a channel, and it is not ready":   {Ways: deliver.Ways{Open: []string{"file"}}},
		"a channel, on a disk not running": {Ways: deliver.Ways{Open: []string{"file"}}, Ready: true, Replaces: true},
		"a user without a key": {Ready: true, Login: &enroll.LoginCheck{Verdict: enroll.LoginImpossible, Problems: []access.Problem{
			{Reason: access.KeysMissing, Detail: "/home/alice/.ssh/authorized_keys"}}}},
	} {
		res.ID, res.Sealed = "aaaaaaaaaaaaaaaaaaaaaaaaaa", sealed
		var out, log bytes.Buffer
		if err := printReset(env{out: &out, err: &log}, tg, "alice", res); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.HasPrefix(out.String(), "-----BEGIN AGE ENCRYPTED FILE-----") {
			t.Errorf("%s: printed %q", name, out.String())
		}
		first := "reset: alice: new envelope "
		if res.Replaces {
			first = "reset: alice: the old secret no longer works; new envelope "
		}
		if !strings.HasPrefix(log.String(), first) || !strings.HasSuffix(log.String(), "open it with: totpctl open FILE\n") {
			t.Errorf("%s: said %q", name, log.String())
		}
		if said, want := strings.Contains(log.String(), "cannot log in yet"), res.Login != nil; said != want {
			t.Errorf("%s: said %q", name, log.String())
		}
		if err := printReset(env{out: fullDisk{}, err: &log}, tg, "alice", res); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: on a full disk: %v", name, err)
		}
	}
}
