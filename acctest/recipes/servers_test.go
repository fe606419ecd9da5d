// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package recipes_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/tool"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// machines are the names of those that get a URL signed.
var machines = []string{"web-1", "web-2"}

// startS3 starts versitygw, with its objects in files.
func startS3(t *testing.T, s *site) {
	const module = "github.com/packer-plugin-totp/packer-plugin-totp/acctest/recipes/s3"
	gateway := made(t, "go", func(ctx context.Context, cache string) (string, error) {
		return tool.Go(ctx, "s3", cache, "github.com/versity/versitygw/cmd/versitygw", os.Stderr)
	})
	sign := made(t, "go", func(ctx context.Context, cache string) (string, error) {
		return tool.Go(ctx, "s3", cache, module, os.Stderr)
	})
	objects, sidecar := t.TempDir(), t.TempDir()
	addr := s.freeAddr()
	// Attributes of files are not on every file system.
	s.run(addr, []string{"ROOT_ACCESS_KEY=key", "ROOT_SECRET_KEY=secretofthekey"}, gateway,
		"--port", addr, "--cert", s.cert, "--key", s.key, "posix", "--sidecar", sidecar, objects)
	urls := signed(t, s, []string{"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secretofthekey", "AWS_CA_BUNDLE=" + filepath.Join(s.dir, "ca.pem"),
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null"},
		1, sign, "https://"+s.wire.addr, "cards")
	s.fill = func(m *machine) []string {
		return []string{"https://s3.example/cards/web-1-alice.age?X-Amz-Algorithm=...", urls[m.name][0]}
	}
	s.got = func(m *machine) []byte { return readOr(t, filepath.Join(objects, "cards", m.name+"-alice.age")) }
}

// startAzure starts Azurite, with its blobs in memory.
func startAzure(t *testing.T, s *site) {
	dir := made(t, "npm", func(ctx context.Context, cache string) (string, error) {
		return tool.NPM(ctx, "azure", cache, os.Stderr)
	})
	script, err := os.ReadFile("azure/sign.mjs")
	if err != nil {
		t.Fatal(err)
	}
	// It imports what is installed beside it.
	sign := s.write("sign.mjs", string(script), 0o600)
	if err := os.Symlink(filepath.Join(dir, "node_modules"), filepath.Join(s.dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	addr := s.freeAddr()
	host, port, _ := net.SplitHostPort(addr)
	key := base64.StdEncoding.EncodeToString(make([]byte, 64))
	s.run(addr, []string{"AZURITE_ACCOUNTS=account:" + key}, "node", filepath.Join(dir, "node_modules", "azurite", "dist", "src", "blob", "main.js"),
		"--blobHost", host, "--blobPort", port, "--cert", s.cert, "--key", s.key, "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent")
	urls := signed(t, s, []string{"AZURE_STORAGE_KEY=" + key, "NODE_EXTRA_CA_CERTS=" + filepath.Join(s.dir, "ca.pem")},
		2, "node", sign, "https://"+s.wire.addr+"/account", "account", "cards")
	s.fill = func(m *machine) []string {
		return []string{"https://account.blob.example/cards/web-1-alice.age?sv=...", urls[m.name][0]}
	}
	s.got = func(m *machine) []byte { return s.get(addr, urls[m.name][1]) }
}

// startWebhook starts Debian's webhook.
func startWebhook(t *testing.T, s *site) {
	program := filepath.Join(debian(t, "webhook"), "usr", "bin", "webhook")
	envelopes, key := t.TempDir(), strings.Repeat("0123456789abcdef", 2)
	const pageKey = "7d3f0c2b9a1e4f5d8c6b7a0e9f1d2c3b"
	keep := s.write("keep-card", filled(t, fence(t, s.heading, "sh"), "/srv/envelopes", envelopes), 0o755)
	hooks := s.write("hooks.json", filled(t, fence(t, s.heading, "json"), pageKey, key, "/usr/local/bin/keep-card", keep), 0o600)
	addr := s.freeAddr()
	host, port, _ := net.SplitHostPort(addr)
	s.run(addr, []string{"TMPDIR=" + t.TempDir()}, program, "-hooks", hooks, "-ip", host, "-port", port, "-secure", "-cert", s.cert, "-key", s.key, "-verbose")
	s.fill = func(*machine) []string { return []string{"hooks.example:9000", s.wire.addr, pageKey, key} }
	s.got = func(m *machine) []byte { return readOr(t, filepath.Join(envelopes, m.id+".age")) }
}

// startNginx starts Debian's nginx.
func startNginx(t *testing.T, s *site) {
	program := filepath.Join(debian(t, "nginx"), "usr", "sbin", "nginx")
	root, addr := t.TempDir(), s.freeAddr()
	if err := os.Mkdir(filepath.Join(root, "cards"), 0o700); err != nil {
		t.Fatal(err)
	}
	server := filled(t, fence(t, s.heading, "nginx"), "listen 443 ", "listen "+addr+" ", "/etc/nginx/cards.pem", s.cert, "/etc/nginx/cards.key", s.key,
		"/etc/nginx/servers-ca.pem", filepath.Join(s.dir, "ca.pem"), "root /srv;", "root "+root+";", "/srv/cards/.part", filepath.Join(root, "cards", ".part"))
	var more strings.Builder
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&more, "%s_temp_path %s;\n", name, filepath.Join(s.dir, name))
	}
	conf := s.write("nginx.conf", "daemon off;\nmaster_process off;\npid "+filepath.Join(s.dir, "pid")+";\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"+more.String()+server+"}\n", 0o600)
	s.run(addr, nil, program, "-p", s.dir, "-e", "stderr", "-c", conf)
	s.fill = func(*machine) []string { return []string{"cards.example", s.wire.addr} }
	s.files = func(m *machine) map[string]string {
		cert, key := s.ca.issue(t, m.name)
		return map[string]string{target.CloudInstance + "/totp-client.pem": cert, target.CloudInstance + "/totp-client.key": key}
	}
	s.got = func(m *machine) []byte { return readOr(t, filepath.Join(root, "cards", m.name, m.id)) }
}

// made returns what make makes in the cache. Where the program that it needs is
// missing the test is skipped, unless CI=true is set.
func made(t *testing.T, needs string, make func(ctx context.Context, cache string) (string, error)) string {
	t.Helper()
	if _, err := exec.LookPath(needs); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is needed: %v", needs, err)
		}
		t.Skipf("%s is not installed: %v", needs, err)
	}
	cache, err := rootfs.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	name, err := make(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func debian(t *testing.T, name string) string {
	t.Helper()
	return made(t, "apt-get", func(ctx context.Context, cache string) (string, error) {
		return tool.Debian(ctx, cache, name, os.Stderr)
	})
}

// signed runs a program that prints URLs, so many for the object of each machine.
func signed(t *testing.T, s *site, env []string, each int, program string, args ...string) map[string][]string {
	t.Helper()
	for _, name := range machines {
		args = append(args, name+"-alice.age")
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = s.dir
	out, err := cmd.Output()
	if err != nil {
		var said []byte
		if exit, ok := err.(*exec.ExitError); ok {
			said = exit.Stderr
		}
		t.Fatalf("%v\n%s\n%s", err, said, s.said())
	}
	lines := strings.Fields(string(out))
	if len(lines) != each*len(machines) {
		t.Fatalf("%d URLs are signed, want %d", len(lines), each*len(machines))
	}
	urls := map[string][]string{}
	for i, name := range machines {
		urls[name] = lines[each*i : each*(i+1)]
	}
	return urls
}

// get reads a URL at the server's own address, nil if nothing is there.
func (s *site) get(addr, url string) []byte {
	s.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.cert)
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}
	resp, err := client.Get(url)
	if err != nil {
		s.Error(err)
		return nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil
	}
	return body
}
