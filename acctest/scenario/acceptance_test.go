// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/report"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/scenario"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/vm"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// TestAcceptance goes the whole way. With TOTP_ACC=all it then does to instances
// what happens to servers: a clone, a reboot, boots in which the agent does not
// work, power cuts in the first boot, which takes a quarter of an hour.
//
// An emulated machine keeps one processor busy, so that tests of several are
// parallel: -parallel is how many machines run at once.
func TestAcceptance(t *testing.T) {
	acc := os.Getenv("TOTP_ACC")
	if acc == "" {
		t.Skip("set TOTP_ACC=1 to build an image and boot it, as root on Debian; TOTP_ACC=all does more to it")
	}
	t.Parallel()
	cache, err := rootfs.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	res, err := scenario.Run(t.Context(), scenario.Options{
		Module: filepath.Dir(cache), Cache: cache, Work: t.TempDir(), Report: report.New(t.Output()),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the image holds nothing of its build", func(t *testing.T) {
		if err := res.Lab.CheckImage(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("the channels have what they should", func(t *testing.T) { testChannels(t, res) })
	if acc != "all" {
		return
	}
	t.Run("a clone has secrets of its own", func(t *testing.T) { testClone(t, res) })
	b := boots{res: res, states: spoiled(false)}
	spoil := func(t *testing.T) { b.begin(t); b.spoil(t, 0) }
	if t.Run("a reboot changes nothing", func(t *testing.T) { testReboot(t, res, spoil) }) {
		b.run(t)
	}
	for _, m := range moments {
		t.Run("power cut "+m.name, func(t *testing.T) {
			t.Parallel()
			testPowerCut(t, res.Lab, m)
		})
	}
	t.Run("a server with nothing but SSH", func(t *testing.T) {
		t.Parallel()
		testServer(t, res.Lab)
	})
}

// testChannels looks for what came through the virtio port where the other channels
// have left it: in the console's log, and no longer on the disk, since both users
// have logged in with a code.
func testChannels(t *testing.T, res *scenario.Result) {
	i := res.Instance
	envelopes, err := i.Envelopes()
	if err != nil || len(envelopes) != len(res.Cards) {
		t.Fatalf("%d envelopes, %v", len(envelopes), err)
	}
	for n, e := range envelopes {
		err := i.ReadDisk(t.Context(), func(d *vm.Disk) error {
			_, err := d.ReadFile(t.Context(), path.Join(target.Envelopes, e.Owner.Name+"."+e.ID+".age"))
			return err
		})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: after the login an envelope still lies on the disk: %v", e.Owner.Name, err)
		}
		e.File = i.Console
		if c, err := i.Open(t.Context(), e); err != nil || c.Secret != res.Cards[n].Secret {
			t.Errorf("%s: the console's log: %v", e.Owner.Name, err)
		}
	}
}

// leftovers tells where the cut has hit.
func leftovers(t *testing.T, i *scenario.Instance) []string {
	t.Helper()
	var all []string
	err := i.ReadDisk(t.Context(), func(d *vm.Disk) error {
		for _, dir := range []string{target.PAMStateDir, target.Staged, target.Ready, target.Receipts} {
			names, err := d.ReadDir(t.Context(), dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for _, name := range names {
				all = append(all, path.Join(path.Base(dir), name))
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

// enter logs in with key and a fresh code, and checks what comes of it.
func enter(t *testing.T, i *scenario.Instance, c card.Card, want login.Outcome) {
	t.Helper()
	r, err := i.Enter(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Outcome != want {
		t.Errorf("%s with card %s: %v, want %v", c.User, c.ID, r, want)
	}
}

func boot(t *testing.T, i *scenario.Instance) {
	t.Helper()
	t.Cleanup(i.Cut)
	if err := i.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := i.Machine.WaitUp(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func states(t *testing.T, i *scenario.Instance) map[string]otp.State {
	t.Helper()
	s, err := i.States(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testReboot has also do look at the instance before it is shut down again.
func testReboot(t *testing.T, res *scenario.Result, also func(*testing.T)) {
	i := res.Instance
	before := states(t, i)
	envelopes, err := i.Envelopes()
	if err != nil {
		t.Fatal(err)
	}
	boot(t, i)
	for _, c := range res.Cards {
		enter(t, i, c, login.In)
	}
	also(t)
	if err := i.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := states(t, i)
	if len(after) != len(before) {
		t.Errorf("%d states, before it %d", len(after), len(before))
	}
	for user, s := range before {
		if after[user].Secret != s.Secret || after[user].Mark != s.Mark || !slices.Equal(after[user].BackupCodes, s.BackupCodes) {
			t.Errorf("%s has another state", user)
		}
	}
	if again, err := i.Envelopes(); err != nil || !reflect.DeepEqual(again, envelopes) {
		t.Errorf("%d envelopes, before it %d, %v", len(again), len(envelopes), err)
	}
}

func testClone(t *testing.T, res *scenario.Result) {
	old := states(t, res.Instance)
	c, err := res.Instance.Clone(t.Context(), "web2", res.Instance.People)
	if err != nil {
		t.Fatal(err)
	}
	boot(t, c)
	envelopes, err := c.Await(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var mine card.Card
	for _, e := range envelopes {
		fresh, err := c.Open(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		if fresh.User == res.Cards[0].User {
			mine = fresh
		}
		if fresh.Secret == old[fresh.User].Secret {
			t.Errorf("%s has the secret of the original", fresh.User)
		}
		enter(t, c, fresh, login.In)
	}
	for _, dead := range res.Cards {
		// It is another machine: what is trusted are its own host keys.
		dead.HostKeys = mine.HostKeys
		enter(t, c, dead, login.Refused)
	}
	testSecondTry(t, c, mine)
	if err := c.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	for user, s := range states(t, c) {
		if s.Secret == old[user].Secret {
			t.Errorf("the state of %s is the original's", user)
		}
	}
}

// testSecondTry looks at an instance whose module and agent were stopped at their
// first tries: sshd did not wait for the second ones, which have enrolled everybody.
func testSecondTry(t *testing.T, i *scenario.Instance, c card.Card) {
	t.Helper()
	// cloud-init may start sshd anew: its first start is in the journal.
	out, err := i.Sudo(t.Context(), c, `said() {
	journalctl --merge --no-pager --output=short-monotonic --unit=$1.service _BOOT_ID=$(tr -d - </proc/sys/kernel/random/boot_id)
}
for unit in totp-module totp-agent; do
	systemctl show --property=Result $unit.service
	said $unit | grep -o 'operation timed out' || said $unit
done
said ssh | sed -n '/Server listening/ { s/^\[ *\([0-9]*\)[.]\([0-9]*\)].*/\1\2/p; q }'
systemctl show --property=ExecMainExitTimestampMonotonic --value totp-agent.service`)
	if err != nil {
		t.Fatal(err)
	}
	var sshd, end int64
	both := strings.Repeat("Result=success\noperation timed out\n", 2)
	_, err = fmt.Sscanf(strings.TrimPrefix(out, both), "%d\n%d\n", &sshd, &end)
	if err != nil || sshd >= end {
		t.Errorf("the start of sshd and the end of the agent: %q, %v", out, err)
	}
}

// moment is when the power is cut in an instance's first boot.
type moment struct {
	host string
	name string
	wait func(*testing.T, *scenario.Instance) error
}

var moments = []moment{
	{"cut1", "while the agent enrolls", func(t *testing.T, i *scenario.Instance) error {
		err := i.Machine.WaitConsole(t.Context(), "Starting totp-agent.")
		time.Sleep(200 * time.Millisecond)
		return err
	}},
	{"cut2", "before anything is delivered", func(t *testing.T, i *scenario.Instance) error {
		return i.Machine.WaitConsole(t.Context(), "Finished totp-agent.")
	}},
	{"cut3", "when the first envelope has arrived", func(t *testing.T, i *scenario.Instance) error {
		for {
			envelopes, err := i.Envelopes()
			if len(envelopes) > 0 || err != nil {
				return err
			}
			if !i.Machine.Running() {
				return vm.ErrEnded
			}
			time.Sleep(5 * time.Millisecond)
		}
	}},
}

// testPowerCut demands that after the boot that follows each user has one live
// secret, whose envelope has been received and which logs in.
func testPowerCut(t *testing.T, lab *scenario.Lab, m moment) {
	people, err := lab.People(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i, err := lab.NewInstance(t.Context(), m.host, people)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Cut)
	if err := i.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.wait(t, i); err != nil {
		t.Fatal(err)
	}
	i.Cut()
	early, err := i.Envelopes()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d envelopes have arrived; on the disk are %v", len(early), leftovers(t, i))

	boot(t, i)
	envelopes, err := i.Await(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	cards := map[string]card.Card{} // by id
	for _, e := range envelopes {
		c, err := i.Open(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		cards[c.ID] = c
	}
	// Which of a user's cards is the live one is seen on the disk; with more than
	// one, the newest is tried, so that one boot is enough.
	newest := map[string]card.Card{}
	for _, c := range cards {
		if n, ok := newest[c.User]; !ok || c.Created.After(n.Created) {
			newest[c.User] = c
		}
	}
	for _, c := range newest {
		enter(t, i, c, login.In)
	}
	if err := i.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	live := states(t, i)
	for _, p := range people {
		s, ok := live[p.Name]
		if ok != p.Enrolled() {
			t.Errorf("%s: state %v, enrolled %v", p.Name, ok, p.Enrolled())
		}
		if ok && cards[s.Mark.ID].Secret != s.Secret {
			t.Errorf("%s: the envelope of the live secret has not been received", p.Name)
		}
	}
	if len(live) != 2 {
		t.Errorf("%d state files", len(live))
	}
}
