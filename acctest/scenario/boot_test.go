// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
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
)

// TestSystems goes the whole way on the other systems that are proven, each with a
// firewall. Further boots of their instances are in acctest/boots.
func TestSystems(t *testing.T) {
	if os.Getenv("TOTP_ACC") != "all" {
		t.Skip("set TOTP_ACC=all to build images of Debian 11 and 13 and boot them, as root on Debian")
	}
	t.Parallel()
	clock := newTimeServer(t)
	for _, s := range []struct {
		vm.System
		firewall scenario.Firewall
	}{
		{vm.Debian11, scenario.Firewalld}, // which cannot be installed beside the cloud-init of Debian 13
		{vm.Debian13, scenario.UFW},
	} {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			cache, err := rootfs.CacheDir()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(cache, 0o755); err != nil {
				t.Fatal(err)
			}
			res, err := scenario.Prove(t.Context(), scenario.Options{
				System: s.System, Firewall: &s.firewall, Module: filepath.Dir(cache), Cache: cache, Work: t.TempDir(), Report: report.New(t.Output()),
				PullPlug: true, // the image of Debian 12 is that of a machine which was shut down
			})
			if res.Instance != nil {
				t.Cleanup(res.Instance.Cut)
			}
			if err != nil {
				t.Fatal(err)
			}
			passed(t, res.Rows)
			if err := res.Lab.CheckImage(t.Context()); err == nil {
				t.Error("the image, which its first boot is to clean, has nothing to be cleaned of")
			}
			b := boots{res: res}
			b.cleaned(t)
			t.Run(s.firewall.Name+" is live", func(t *testing.T) { b.firewall(t, clock) })
			b.cycles(t)
			b.clock(t)
			b.cloud(t)
			b.console(t)
			if err := res.Instance.PowerOff(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// boots are the looks at an instance after its first boot.
type boots struct{ res *scenario.Result }

// cleaned looks whether the instance has anything of the build: gone with the
// shutdown of the build, or with the first boot of the image.
func (b *boots) cleaned(t *testing.T) {
	t.Helper()
	out, err := b.res.Instance.Sudo(t.Context(), b.card(), `id packer 2>&1 || true
ls /var/lib/totp-agent/clean.json /home/packer /etc/sudoers.d/*packer* 2>/dev/null || true
grep -c packer /etc/passwd /etc/shadow /etc/group || true
systemctl --no-pager is-failed totp-clean.service || true`)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("of the build: %q", out)
	if !strings.Contains(out, "no such user") || strings.Contains(out, "clean.json") || strings.Contains(out, "/home/packer") || strings.Contains(out, "sudoers.d") ||
		!strings.Contains(out, "/etc/passwd:0\n/etc/shadow:0\n/etc/group:0\n") || strings.Contains(out, "\nfailed") {
		t.Errorf("of the build there is %q", out)
	}
}

// cloud asks cloud-init how its boot has ended: nothing that user-data of ours say
// is an error to it, or makes the boot degraded.
func (b *boots) cloud(t *testing.T) {
	t.Helper()
	out, err := b.res.Instance.Sudo(t.Context(), b.card(), `timeout 240 cloud-init status --wait >/dev/null || true
code=0
cloud-init status --long || code=$?
echo "exit status $code"
systemctl show --property=Result totp-module.service
systemctl show --property=ExecMainStartTimestampMonotonic,ExecMainExitTimestampMonotonic totp-agent.service`)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cloud-init: %q", out)
	if !strings.HasPrefix(out, "status: done\n") || !strings.Contains(out, "\nexit status 0\n") || strings.Contains(out, "degraded") {
		t.Errorf("cloud-init status: %q", out)
	}
	// The unit of cloud-init's module has had its turn, and found nothing to do.
	if !strings.Contains(out, "\nResult=exec-condition\n") {
		t.Errorf("totp-module.service: %q", out)
	}
	// How long sshd has waited is for a reader, who knows whether KVM was there.
	delay, err := unitTime(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("sshd has waited %s for totp-agent.service", delay)
}

// unitTime returns how long the main process of a unit has run, by the timestamps
// that systemctl shows, in microseconds.
func unitTime(shown string) (time.Duration, error) {
	at := func(which string) (time.Duration, error) {
		_, rest, _ := strings.Cut(shown, "ExecMain"+which+"TimestampMonotonic=")
		text, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseInt(text, 10, 64)
		if err == nil && n == 0 {
			err = errors.New("the unit has not run")
		}
		return time.Duration(n) * time.Microsecond, err
	}
	start, err := at("Start")
	exit, eerr := at("Exit")
	return exit - start, errors.Join(err, eerr)
}

// clock compares what the agent says of the clock with what systemd says: on an
// instance of a bake, an NTP client is enabled.
func (b *boots) clock(t *testing.T) {
	t.Helper()
	out, err := b.res.Instance.Sudo(t.Context(), b.card(), `systemctl is-enabled systemd-timesyncd
timedatectl show --property=NTPSynchronized --value
totp-agent status --json || :`)
	if err != nil {
		t.Fatal(err)
	}
	enabled, rest, _ := strings.Cut(out, "\n")
	synchronised, status, _ := strings.Cut(rest, "\n")
	var st struct{ Clock target.Clock }
	if err := json.Unmarshal([]byte(status), &st); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	t.Logf("NTP client %s, synchronised: %s; the agent: %s", enabled, synchronised, st.Clock)
	want := map[string]target.ClockState{"yes": target.ClockSynchronised, "no": target.ClockUnsynchronised}[synchronised]
	if enabled != "enabled" || want == "" || st.Clock.State != want {
		t.Errorf("the clock: %q", out)
	}
}

// console logs in on the serial console, which needs no code.
func (b *boots) console(t *testing.T) {
	t.Helper()
	password := rand.Text()
	if _, err := b.res.Instance.Sudo(t.Context(), b.card(), "echo root:"+password+" | chpasswd"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.res.Instance.Machine.LogIn(t.Context(), password, "test $(id -u) = 0"); err != nil {
		t.Error(err)
	}
}

// card is alice's, who may use sudo.
func (b *boots) card() card.Card { return b.res.Cards[0] }

func (b *boots) cycles(t *testing.T) {
	t.Helper()
	if err := b.res.Instance.OrderingCycles(t.Context(), b.card()); err != nil {
		t.Error(err)
	}
}

func passed(t *testing.T, rows login.Rows) {
	t.Helper()
	if !rows.OK() {
		t.Errorf("the logins are not as expected\n%s", rows)
	}
}
