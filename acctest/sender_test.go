// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// Where systemd does not run, root's command starts the process that speaks to the
// network, as nobody.
func TestSenderWithoutSystemd(t *testing.T) {
	t.Parallel()
	m := newMachineOf(t, rootfs.Debian12)
	var mu sync.Mutex
	var users []string
	srv := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		users = append(users, userOf(r.RemoteAddr))
		mu.Unlock()
	}))
	defer srv.Close()
	write(t, m.Path("/etc/panel.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	if err := os.Chmod(m.Path("/etc/panel.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	alice := m.img.people["alice"]
	write(t, m.Path("/etc/totp-agent/image.yaml"), fmt.Sprintf(
		"version: 1\njitter: 0s\nchannels: [{type: http, url: \"%s/{id}\", ca_file: /etc/panel.pem}]\nusers: [{name: alice, recipients: [%s]}]\n", srv.URL, alice.recipient))
	m.ok("enroll")
	if s := m.ok("deliver"); !strings.Contains(s.err, ": delivered") {
		t.Errorf("deliver: %s", s.err)
	}
	if len(users) != 1 || users[0] != "65534" {
		t.Errorf("sent by users %q", users)
	}
	if left := m.must("sh", "-c", "ps -e -o user=,args= | grep '[t]otp-agent send' || true"); left != "" {
		t.Errorf("still there: %s", left)
	}
}

// userOf is the user at this end of a TCP connection, proc(5).
func userOf(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err.Error()
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err.Error()
	}
	// The table is read in pieces, and a connection can be missed between two of them
	// while others come and go.
	for range 1000 {
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			return err.Error()
		}
		for line := range strings.Lines(string(table)) {
			if f := strings.Fields(line); len(f) > 7 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) {
				return f[7]
			}
		}
	}
	return "none"
}
