// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"encoding/base64"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
)

// TestOpenStackAddress: the channel as an image has it speaks to the metadata
// service's own address, past any proxy. It is tried in a network of its own.
func TestOpenStackAddress(t *testing.T) {
	const inside = "TEST_OPENSTACK_NETWORK"
	if os.Getenv(inside) == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root, for a network of its own")
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOpenStackAddress$")
		cmd.Env = append(os.Environ(), inside+"=1", "HTTP_PROXY=http://127.0.0.1:9", "http_proxy=http://127.0.0.1:9")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	ownAddress(t, "169.254.169.254")
	l, err := net.Listen("tcp", "169.254.169.254:80")
	must(t, err)
	n := new(Nova)
	srv := &http.Server{Handler: n}
	go srv.Serve(l)
	defer srv.Close()
	must(t, drivers[policy.ChannelOpenStack].New(policy.Channel{Type: policy.ChannelOpenStack}, nil).Send(t.Context(), small()))
	if want := base64.StdEncoding.EncodeToString(small().Compact); n.Password() != want {
		t.Errorf("kept %q", n.Password())
	}
}

// ownAddress gives it to the loopback interface of a new network, netdevice(7).
func ownAddress(t *testing.T, addr string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must(t, err)
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	must(t, err)
	lo.SetUint16(unix.IFF_UP)
	must(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
	must(t, lo.SetInet4Addr(net.ParseIP(addr).To4()))
	must(t, unix.IoctlIfreq(fd, unix.SIOCSIFADDR, lo))
}
