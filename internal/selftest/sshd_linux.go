// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// unitOptions are those that systemd would start sshd with, without the ones that
// the self-test gives itself.
func unitOptions() ([]string, error) {
	m, err := target.Open("/")
	if err != nil {
		return nil, err
	}
	defer m.Close()
	start, err := bake.StartOf(m)
	if err != nil {
		return nil, err
	}
	return start.ConfigArgs(), nil // none: the row about it says so
}

// hostKeys makes host keys of the kinds that every sshd has one of; the image may
// have none.
func hostKeys() (options []string, public []ssh.PublicKey, err error) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	for kind, key := range map[string]crypto.Signer{"ed25519": ed, "ecdsa": ec} {
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			return nil, nil, err
		}
		name := path.Join(dir, "host_key_"+kind)
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, nil, err
		}
		p, err := ssh.NewPublicKey(key.Public())
		if err != nil {
			return nil, nil, err
		}
		options, public = append(options, "-h", name), append(public, p)
	}
	return options, public, nil
}

// userKey makes the key of all throw-away users, of a kind that this sshd takes.
func userKey(accepted string) (ssh.Signer, error) {
	if accepted == "" || slices.Contains(strings.Split(accepted, ","), ssh.KeyAlgoED25519) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return ssh.NewSignerFromSigner(key)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromSigner(key)
}

// errSSHD means that sshd does not start, or refuses its configuration.
var errSSHD = errors.New("sshd does not start")

// settings asks sshd what it would do with a user: keyword in lower case → values.
func settings(options []string, user string) (map[string][]string, error) {
	args := slices.Concat([]string{"-T", "-C", "user=" + user + ",host=localhost,addr=127.0.0.2,laddr=127.0.0.1,lport=22"}, options)
	var errs bytes.Buffer
	cmd := exec.Command(target.SSHD, args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %s", errSSHD, err, lastLine(errs.String()))
	}
	m := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		keyword, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[strings.ToLower(keyword)] = append(m[strings.ToLower(keyword)], value)
	}
	return m, nil
}

// A server is an sshd of the image, running.
type server struct {
	port int
	log  *catcher
}

// addr is where it listens for a client of an address family.
func (s *server) addr(six bool) string {
	host := "127.0.0.1"
	if six {
		host = "::1"
	}
	return net.JoinHostPort(host, fmt.Sprint(s.port))
}

// startServer starts sshd, and returns when it answers. It ends with the namespaces.
func startServer(port int, options []string) (*server, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s := &server{port: port, log: new(catcher)}
	args := slices.Concat([]string{
		"-D", "-e", "-p", fmt.Sprint(port),
		"-o", "AddressFamily=any",
		"-o", fmt.Sprintf("ListenAddress=127.0.0.1:%d", port),
		"-o", fmt.Sprintf("PidFile=%s/sshd-%d.pid", dir, port),
	}, options)
	cmd := exec.Command(target.SSHD, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", errSSHD, err)
	}
	w.Close()
	read, ended := make(chan struct{}), make(chan struct{})
	go func() { s.log.read(r); close(read) }()
	go func() { _ = cmd.Wait(); close(ended) }()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(strings.Join(s.log.since(0, "Server listening on 127.0.0.1"), ""), "127.0.0.1") {
			return s, nil
		}
		select {
		case <-ended:
			<-read
			return s, fmt.Errorf("%w: it ended", errSSHD)
		default:
		}
	}
	return s, fmt.Errorf("%w: it does not listen", errSSHD)
}
