// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario_test

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/port"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
)

// firewall looks whether the instance's firewall holds in the kernel, with the holes
// of the bake and no others. That SSH gets in is seen by now: it was closed in the
// build.
func (b *boots) firewall(t *testing.T, clock *timeServer) {
	f := b.res.Lab.Firewall
	text, err := os.ReadFile(b.res.Lab.BuildReport())
	if err != nil {
		t.Fatal(err)
	}
	var baked bake.Report
	if err := json.Unmarshal(text, &baked); err != nil {
		t.Fatal(err)
	}
	holes := []string{"22/tcp in"}
	if f.Out {
		holes = append(holes, "123/udp out")
	}
	if len(baked.Firewall) != 1 || baked.Firewall[0].Name != f.Name || !slices.Equal(baked.Firewall[0].Allowed, holes) {
		t.Errorf("the report: %+v", baked.Firewall)
	}
	sudo := func(script string) string {
		t.Helper()
		out, err := b.res.Instance.Sudo(t.Context(), b.card(), script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	// What goes out: time, by the instance's own NTP client, and nothing else by
	// UDP. A second sshd is who would answer what comes in.
	asked := clock.asked.Load()
	out := sudo(f.Look + `
for port in 123 124; do
	bash -c "echo >/dev/udp/10.0.2.2/$port" 2>&1 && echo "UDP $port is out"
done || true
mkdir -p /etc/systemd/timesyncd.conf.d
printf '[Time]\nNTP=10.0.2.2\n' >/etc/systemd/timesyncd.conf.d/lab.conf
systemctl restart systemd-timesyncd
for n in $(seq 60); do
	[ $(timedatectl show --property=NTPSynchronized --value) = no ] || break
	sleep 1
done
timedatectl show --property=NTPSynchronized
$(command -v sshd) -p 2200 -o PidFile=/run/second-sshd.pid
while [ ! -e /run/second-sshd.pid ]; do sleep 0.1; done`)
	t.Logf("the firewall: %s", out)
	for _, want := range append(slices.Clone(f.Shows), "UDP 123 is out\n", "NTPSynchronized=yes\n") {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if f.Out != strings.Contains(out, "Operation not permitted\n") || f.Out == strings.Contains(out, "UDP 124 is out") || clock.asked.Load() == asked {
		t.Errorf("of what goes out, the time server was asked %d times\n%s", clock.asked.Load()-asked, out)
	}

	// What comes in: SSH on its own port only. Each login is one code of those that
	// are to be waited for, so there is none to end the second sshd.
	second, err := b.res.Instance.Machine.Forward(t.Context(), 2200)
	if err != nil {
		t.Fatal(err)
	}
	if port.Greeted(t.Context(), second, 5*time.Second) {
		t.Error("a port that nobody has opened is open")
	}
	sudo(f.Open + "\n" + f.Off)
	if !port.Greeted(t.Context(), second, 2*time.Minute) {
		t.Error("a port that was opened is not open, so that the other look was at nothing")
	}
}

// timeServer is an NTP server on this machine's loopback, which is 10.0.2.2 to its
// guests.
type timeServer struct{ asked atomic.Int64 }

func newTimeServer(t *testing.T) *timeServer {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:123")
	if err != nil {
		t.Fatalf("%v; stop the NTP server of this machine", err)
	}
	s := &timeServer{}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if n >= 48 {
				s.asked.Add(1)
				_, _ = conn.WriteTo(ntpAnswer(buf[:48], time.Now()), from)
			}
		}
	}()
	return s
}

// ntpAnswer is what a server says whose own clock is right, RFC 5905 section 7.3.
func ntpAnswer(request []byte, now time.Time) []byte {
	const since1900 = 2208988800 // seconds until 1970
	stamp := uint64(now.Unix()+since1900)<<32 | uint64(now.Nanosecond())<<32/1e9
	a := make([]byte, 48)
	a[0] = 4<<3 | 4 // version 4, server
	a[1] = 1        // stratum
	a[3] = 0xec     // precision, 2^-20 s
	copy(a[12:], "LOCL")
	copy(a[24:32], request[40:48]) // whose answer it is
	for _, at := range []int{16, 32, 40} {
		binary.BigEndian.PutUint64(a[at:], stamp)
	}
	return a
}
