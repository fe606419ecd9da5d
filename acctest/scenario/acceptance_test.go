// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario_test

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
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

// TestAcceptance goes the whole way. With TOTP_ACC=all it then does what needs a disk
// and a virtio port: a power cut in the first boot, and a server whose seed is a CD.
// What needs neither is in acctest/boots.
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
	t.Run("power cut when the first envelope has arrived", func(t *testing.T) {
		t.Parallel()
		testPowerCut(t, res.Lab)
	})
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

// firstEnvelope returns when the first envelope has been received.
func firstEnvelope(i *scenario.Instance) error {
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
}

// testPowerCut cuts the power when the first envelope has been received, which loses
// what the guest has not written to its disk. After the boot that follows each user has
// one live secret, whose envelope has been received and which logs in.
func testPowerCut(t *testing.T, lab *scenario.Lab) {
	people, err := lab.People(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i, err := lab.NewInstance(t.Context(), "cut", people)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Cut)
	if err := i.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := firstEnvelope(i); err != nil {
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
