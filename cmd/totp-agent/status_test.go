// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/access"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// TestPrintStatus: problems come first, each with the command that ends it. One line says
// how far each user is, and below the table is what each channel did last and does next.
func TestPrintStatus(t *testing.T) {
	noon := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	st := &enroll.Status{
		Identity: "instance-id i-1 of cloud-init", Time: noon,
		Remarks: []enroll.RefusedLayer{{Layer: "vendor", Error: "later: unknown"}},
		Clock:   &target.Clock{State: target.ClockSynchronised},
		Users: []enroll.UserStatus{
			{Name: "alice", Enrolled: true, Used: true, Login: &enroll.LoginCheck{Verdict: enroll.LoginPossible}, ID: "aaaaaaaaaaaaaaaaaaaaaaaaaa", Card: enroll.CardDelivered, Delivery: map[string]enroll.Delivery{
				"virtio":  {State: deliver.Delivered, Tries: 2, Last: noon},
				"console": {State: deliver.Offered, Tries: 1, Last: noon},
			}},
			{Name: "bob", Enrolled: true, Login: &enroll.LoginCheck{Verdict: enroll.LoginImpossible, Problems: []access.Problem{
				{Reason: access.DenyUsers, Detail: "x-*", Fix: "grep -rn DenyUsers /etc/ssh"},
			}}, ID: "bbbbbbbbbbbbbbbbbbbbbbbbbb", Card: enroll.CardWaiting, Remark: "channels[1]: too large", Delivery: map[string]enroll.Delivery{
				"http": {State: deliver.Failed, Tries: 3, Last: noon, Next: noon.Add(time.Minute), Error: "no answer"},
			}},
			{Name: "carol", Enrolled: true, Login: &enroll.LoginCheck{Verdict: enroll.LoginUnknown, Unknown: []access.Problem{{Reason: access.KeysCommand}}}, ID: "cccccccccccccccccccccccccc", Card: enroll.CardOffered, Delivery: map[string]enroll.Delivery{
				"file": {State: deliver.Offered, Tries: 1, Last: noon},
			}},
			{Name: "dave", Enrolled: true, ID: "dddddddddddddddddddddddddd", Card: enroll.CardWaiting, Delivery: map[string]enroll.Delivery{
				"http": {State: deliver.Tampered, Tries: 1, Last: noon},
			}},
			{Name: "erin", Why: enroll.ErrNoRecipient.Error(), Code: enroll.CodeNoRecipient},
			{Name: "frank", Enrolled: true, Why: "enrolled by hand"},
		},
		Problems: []enroll.Problem{
			{Code: enroll.CodeDiskLow, What: "almost full", Fix: "df -h"},
			{Code: enroll.CodeNoRecipient, User: "erin", What: "no recipient", Fix: "totp-agent reset erin"},
		},
	}
	want := `identity: instance-id i-1 of cloud-init
last run: 2026-07-01T12:00:00Z
passed over: vendor layer: later: unknown

problem: disk-low: almost full
  to end it: df -h

problem: no-recipient: no recipient
  user: erin
  to end it: totp-agent reset erin

USER   ENROLLED  CAN LOG IN  LOGGED IN  ENVELOPE                    CARD
alice  yes       yes         yes        aaaaaaaaaaaaaaaaaaaaaaaaaa  delivered
bob    yes       NO          no         bbbbbbbbbbbbbbbbbbbbbbbbbb  waiting
carol  yes       unknown     no         cccccccccccccccccccccccccc  offered, unconfirmed
dave   yes       -           no         dddddddddddddddddddddddddd  waiting
erin   no        -           no         -                           -
frank  yes       -           no         -                           -
alice: console: offered, try 1 at 2026-07-01T12:00:00Z
alice: virtio: delivered, try 2 at 2026-07-01T12:00:00Z
bob: channels[1]: too large
bob: cannot log in: x-*: DenyUsers of sshd_config matches the user; remedy: grep -rn DenyUsers /etc/ssh
bob: http: failed, try 3 at 2026-07-01T12:00:00Z: no answer; next try not before 2026-07-01T12:01:00Z
carol: login not judged: AuthorizedKeysCommand may provide keys
carol: file: offered, try 1 at 2026-07-01T12:00:00Z
dave: http: TAMPERED, try 1 at 2026-07-01T12:00:00Z, what is there is not from this machine
frank: enrolled by hand
`
	var out strings.Builder
	if err := printStatus(&out, st); err != nil || out.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out.String(), want)
	}

	out.Reset()
	st = &enroll.Status{Identity: "unknown", Time: noon, Error: "disk full", Notice: "No user can log in.\n", NoticeCode: enroll.CodeDiskFull, Clock: &target.Clock{State: target.ClockUnsynchronised}}
	want = "identity: unknown\nlast run: 2026-07-01T12:00:00Z\nclock: " + st.Clock.String() + "\nnotice: no user can log in over SSH: disk-full (console and SSH banner say so)\n\nUSER  ENROLLED  CAN LOG IN  LOGGED IN  ENVELOPE  CARD\n"
	if err := printStatus(&out, st); err != nil || out.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out.String(), want)
	}
}
