// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestProxies(t *testing.T) {
	got := proxies([]string{"PATH=/bin", "http_proxy=http://127.0.0.1:3142", "HTTPS_PROXY=http://proxy.example:8080/", "http_proxy_x=y", "no_proxy=*"})
	want := map[string]string{"http": "http://10.0.2.2:3142", "https": "http://proxy.example:8080/"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := proxies([]string{"http_proxy="}); len(got) != 0 {
		t.Errorf("empty: %v", got)
	}
}

func TestRecipe(t *testing.T) {
	plain, proxied := recipe(Debian12, nil), recipe(Debian12, map[string]string{"http": "http://10.0.2.2:3142"})
	if plain.key() == proxied.key() {
		t.Error("another recipe has the same key")
	}
	if plain.key() != recipe(Debian12, nil).key() {
		t.Error("the same recipe has another key")
	}
	if plain.key() == recipe(Debian13, nil).key() {
		t.Error("another system has the same key")
	}
	more := recipe(Debian12.With([]string{"ufw"}, map[string]string{"/etc/own": "own\n"}), nil)
	if plain.key() == more.key() || !slices.Contains(more.Packages, "ufw") || !strings.Contains(more.customize(), "cat >./etc/own") {
		t.Error("what a system has beside is not in the recipe")
	}
	for _, r := range []imageRecipe{plain, proxied} {
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = strings.NewReader(r.customize())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if line := `Acquire::http::Proxy "http://10.0.2.2:3142";`; strings.Contains(plain.customize(), "Acquire") || !strings.Contains(proxied.customize(), line) {
		t.Error("the proxy is not where it should be")
	}
	if slices.Contains(plain.Packages, "libpam-google-authenticator") {
		t.Error("the PAM module is there before bake")
	}
}

func TestNothingListensBeyondLoopback(t *testing.T) {
	m := &Machine{Port: 2222, dir: "/tmp/x,y", Enroll: "/tmp/x,y/enroll"}
	args := Config{Disk: "/tmp/a,b.qcow2", Accel: TCG, UUID: "u"}.args(m)
	for i, a := range args {
		if strings.Contains(a, "hostfwd=") && a != "user,id=net,hostfwd=tcp:127.0.0.1:2222-:22" {
			t.Errorf("%q", a)
		}
		if slices.Contains([]string{"-vnc", "-spice", "-gdb", "-s", "-monitor"}, a) {
			t.Errorf("%q", args[i:])
		}
		if strings.Contains(strings.ReplaceAll(a, ",,", ""), "a,b") || strings.Contains(strings.ReplaceAll(a, ",,", ""), "x,y") {
			t.Errorf("%q: a comma of a name ends an option", a)
		}
	}
}

// monitor answers as QEMU does, line by line.
func monitor(t *testing.T, greeting string, answers map[string]string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "m")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, greeting)
		in := bufio.NewScanner(conn)
		for in.Scan() {
			for name, answer := range answers {
				if strings.HasPrefix(in.Text(), `{"execute":"`+name) {
					io.WriteString(conn, answer)
				}
			}
		}
	}()
	return socket
}

func TestCommand(t *testing.T) {
	const (
		greeting = `{"QMP": {"version": {}, "capabilities": []}}` + "\n"
		done     = `{"return": {}}` + "\n"
		event    = `{"timestamp": {"seconds": 1}, "event": "POWERDOWN"}` + "\n"
		refusal  = `{"error": {"class": "CommandNotFound", "desc": "no"}}` + "\n"
	)
	ok := monitor(t, greeting, map[string]string{"qmp_capabilities": done, "system_powerdown": event + done})
	if err := command(t.Context(), ok, "system_powerdown"); err != nil {
		t.Error(err)
	}
	refusing := monitor(t, greeting, map[string]string{"qmp_capabilities": done, "system_powerdown": event + refusal})
	if err := command(t.Context(), refusing, "system_powerdown"); !errors.Is(err, errQMP) {
		t.Errorf("refused: %v", err)
	}
	said := monitor(t, greeting, map[string]string{"qmp_capabilities": done, `human-monitor-command","arguments":{"command-line":"x"}}`: `{"return": "no such x"}` + "\n"})
	if got, err := ask(t.Context(), said, "human-monitor-command", map[string]string{"command-line": "x"}); err != nil || string(got) != `"no such x"` {
		t.Errorf("the answer: %s, %v", got, err)
	}
	if err := command(t.Context(), monitor(t, "{}\n", nil), "system_powerdown"); !errors.Is(err, errQMP) {
		t.Errorf("no greeting: %v", err)
	}
	if err := command(t.Context(), filepath.Join(t.TempDir(), "none"), "system_powerdown"); err == nil {
		t.Error("no monitor: no error")
	}
}
