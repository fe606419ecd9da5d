// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/scenario"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// What user-data and datasource do to an instance that has its secrets.

// notice is what the console says where nobody can log in over SSH.
const notice = "totp-agent: no user can log in to this server over SSH: "

// wants looks for lines of the units and of cloud-init.
func wants(t *testing.T, s scenario.Sight, lines ...string) {
	t.Helper()
	t.Logf("%s", s.Text)
	for _, want := range append(lines, "totp-agent: success\n", "totp-deliver: success\n") {
		if !strings.Contains(s.Text, want) {
			t.Errorf("%q is not there", want)
		}
	}
	if s.Status.Error != "" || len(s.Status.RefusedLayers) > 0 {
		t.Errorf("the status has an error %q, and refused layers %v", s.Status.Error, s.Status.RefusedLayers)
	}
}

// user returns what the status says of one.
func user(s scenario.Sight, name string) enroll.UserStatus {
	if n := slices.IndexFunc(s.Status.Users, func(u enroll.UserStatus) bool { return u.Name == name }); n >= 0 {
		return s.Status.Users[n]
	}
	return enroll.UserStatus{Why: "is not in the status"}
}

// absent looks what became of the user of user-data who has no account: told by the
// agent, and in nobody's way.
func (b *boots) absent(t *testing.T) {
	t.Helper()
	now := b.first
	wants(t, now, "enroll: "+scenario.Absent+": not enrolled: "+enroll.ErrNoAccount.Error())
	if u := user(now, scenario.Absent); u.Enrolled || u.Why != enroll.ErrNoAccount.Error() {
		t.Errorf("%s: %+v", scenario.Absent, u)
	}
	b.kept(t, now)
	if envelopes, err := b.res.Instance.Envelopes(); err != nil || len(envelopes) != len(b.res.Cards) {
		t.Errorf("%d envelopes, %v", len(envelopes), err)
	}
}

// kept wants each user to have the enrollment that the first boot has made.
func (b *boots) kept(t *testing.T, now scenario.Sight) {
	t.Helper()
	for _, c := range b.res.Cards {
		if u := user(now, c.User); !u.Enrolled || u.ID != c.ID || u.Generation != 1 {
			t.Errorf("%s has %+v, want the enrollment %s", c.User, u, c.ID)
		}
	}
	if now.Status.Notice != "" || strings.Contains(b.res.Instance.Machine.ConsoleLog(), notice) {
		t.Errorf("the notice is %q, on the console is\n%s", now.Status.Notice, b.res.Instance.Machine.ConsoleLog())
	}
}

// unreached boots the instance without its datasource: nothing rotates. Root then
// has cloud-init forget that it has ever run.
func (b *boots) unreached(t *testing.T) {
	now := b.again(t, b.res.Instance.BootUnreached, "cloud-init clean --logs")
	wants(t, now, "DataSourceNone", "totp-module: exec-condition\n")
	if want := "unknown: cloud-init found no datasource"; now.Status.Identity != want {
		t.Errorf("the identity is %q, want %q", now.Status.Identity, want)
	}
}

// forgotten boots the instance when cloud-init has forgotten it, with the same
// instance-id: nobody is enrolled anew.
func (b *boots) forgotten(t *testing.T) {
	now := b.again(t, b.res.Instance.Boot, b.states[0].script)
	wants(t, now, "cloud-init: status: done ", "DataSourceNoCloud", "totp-module: exec-condition\n")
	if want := "instance-id of DataSourceNoCloud"; now.Status.Identity != want {
		t.Errorf("the identity is %q, want %q", now.Status.Identity, want)
	}
}

// again boots an instance that is to stay what it was, logs in with the codes of
// its first boot, and leaves it when root has run a script.
func (b *boots) again(t *testing.T, boot func(context.Context) error, script string) scenario.Sight {
	t.Helper()
	i := b.res.Instance
	before, err := i.Sums(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	envelopes, err := i.Envelopes()
	if err != nil || len(before) != len(b.res.Cards)+1 {
		t.Fatalf("%v, files %v", err, before)
	}
	t.Cleanup(i.Cut)
	if err := boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := i.Machine.WaitUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := i.Look(t.Context(), b.password); err != nil {
		t.Fatal(err)
	}
	b.hostKey(t, i)
	b.keyAlone(t, i)
	enter(t, i, b.res.Cards[1], login.In)
	if _, err := i.Sudo(t.Context(), b.card(), script); err != nil {
		t.Fatal(err)
	}
	now := b.seen(t, i)
	b.kept(t, now)
	if !maps.Equal(now.Sums, before) {
		t.Errorf("it had the files %v, and has %v", before, now.Sums)
	}
	if all, err := i.Envelopes(); err != nil || !slices.Equal(all, envelopes) {
		t.Errorf("it had sent %v, and has sent %v, %v", envelopes, all, err)
	}
	return now
}

// hostKey makes the host key that an instance shows that of the cards: to cloud-init
// it is an instance that it has not seen, and there are new ones. [boots.seen] sees
// whether it is the right one.
func (b *boots) hostKey(t *testing.T, i *scenario.Instance) {
	t.Helper()
	line, err := login.Go{}.HostKey(t.Context(), "127.0.0.1", i.Machine.Port)
	if err != nil {
		t.Fatal(err)
	}
	key, err := card.HostKey(line)
	if err != nil {
		t.Fatal(err)
	}
	for n := range b.res.Cards {
		b.res.Cards[n].HostKeys = []string{key}
	}
}

// seen shuts an instance down, and returns what root has seen on it.
func (b *boots) seen(t *testing.T, i *scenario.Instance) scenario.Sight {
	t.Helper()
	if err := i.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := i.Seen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if shown := b.card().HostKeys[0]; !slices.Contains(now.HostKeys, shown) {
		t.Errorf("sshd has shown the key %q, and has %q", shown, now.HostKeys)
	}
	return now
}

// keyAlone tries the login key alone, which opens nothing.
func (b *boots) keyAlone(t *testing.T, i *scenario.Instance) login.Result {
	t.Helper()
	server, err := i.Server(b.card())
	if err != nil {
		t.Fatal(err)
	}
	a, err := i.Account(b.card())
	if err != nil {
		t.Fatal(err)
	}
	r := login.Go{}.Login(t.Context(), server, login.Try{User: a.User, Key: a.Key, Methods: []string{login.PublicKey}})
	if r.Outcome != login.Unasked {
		t.Errorf("%s with the key alone: %v", a.User, r)
	}
	return r
}

// closedClone boots a clone whose user-data say nothing to the agent: the secrets
// of the original are gone, and nobody has new ones.
func (b *boots) closedClone(t *testing.T) {
	original, err := b.res.Instance.Sums(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.res.Instance.CloneOfNobody(t.Context(), "web3")
	if err != nil {
		t.Fatal(err)
	}
	boot(t, c)
	if err := c.Look(t.Context(), b.password); err != nil {
		t.Fatal(err)
	}
	console := c.Machine.ConsoleLog()
	kept := b.card().HostKeys
	b.hostKey(t, c)
	if r := b.keyAlone(t, c); !strings.Contains(r.Banner, notice) {
		t.Errorf("sshd says %q", r.Banner)
	}
	enter(t, c, b.card(), login.Refused)
	now := b.seen(t, c)
	for n := range b.res.Cards {
		b.res.Cards[n].HostKeys = kept
	}
	wants(t, now, "cloud-init: status: done ", "DataSourceNoCloud", "totp-module: exec-condition\n")
	if len(now.Sums) != 1 || now.Sums[target.Identity] == original[target.Identity] {
		t.Errorf("the original has the files %v, the clone %v", original, now.Sums)
	}
	for _, old := range b.res.Cards {
		if u := user(now, old.User); u.Enrolled || u.ID != "" || u.Why != enroll.ErrNoRecipient.Error() {
			t.Errorf("%s: %+v", old.User, u)
		}
	}
	if now.Status.InstanceID != "i-web3" || now.Status.Notice == "" || !strings.Contains(console, notice) {
		t.Errorf("%s says %q, and the console\n%s", now.Status.InstanceID, now.Status.Notice, console)
	}
	if left := leftovers(t, c); len(left) > 0 {
		t.Errorf("on the disk are %q", left)
	}
	if envelopes, err := c.Envelopes(); err != nil || len(envelopes) > 0 {
		t.Errorf("it has sent %v, %v", envelopes, err)
	}
}
