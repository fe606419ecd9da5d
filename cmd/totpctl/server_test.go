// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto/ed25519"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// sshServer starts a server for the rest of the script; its host key is the one on
// the cards of that instance.
//
//	ssh-server [-instance i-1] [-key FILE.pub] [-secret SECRET | -code CODE] [-alone] [-hang FILE] [-banner FILE]
//
// Its address is in $ADDR. A code is good once. With -alone the key suffices; with
// -hang nothing is ever said, and FILE is made when somebody connects.
func sshServer(ts *testscript.TestScript, neg bool, args []string) {
	flags := flag.NewFlagSet("ssh-server", flag.ContinueOnError)
	instance := flags.String("instance", "i-0a1b2c3d", "")
	keyFile := flags.String("key", "", "")
	secret := flags.String("secret", "", "")
	fixed := flags.String("code", "", "")
	alone := flags.Bool("alone", false, "")
	hang := flags.String("hang", "", "")
	banner := flags.String("banner", "", "")
	ts.Check(flags.Parse(args))

	refused := errors.New("refused")
	var mu sync.Mutex
	used := map[string]bool{}
	good := func(code string) bool {
		mu.Lock()
		defer mu.Unlock()
		if used[code] {
			return false
		}
		used[code] = true
		if *secret == "" {
			return code == *fixed
		}
		for i := range 3 {
			if want, err := otp.Code(*secret, time.Now().Add(time.Duration(i-1)*otp.Period*time.Second)); err == nil && code == want {
				return true
			}
		}
		return false
	}
	cfg := &ssh.ServerConfig{
		Config: ssh.Config{KeyExchanges: []string{"curve25519-sha256"}, MACs: []string{"hmac-sha2-256-etm@openssh.com"}},
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if *keyFile == "" || !strings.HasPrefix(ts.ReadFile(*keyFile), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))) {
				return nil, refused
			}
			if *alone {
				return nil, nil
			}
			return nil, &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{
				KeyboardInteractiveCallback: func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
					got, err := ask("", "", []string{"Verification code: "}, []bool{false})
					if err != nil || !good(got[0]) {
						return nil, refused
					}
					return nil, nil
				},
			}}
		},
	}
	if *banner != "" {
		text := ts.ReadFile(*banner)
		cfg.BannerCallback = func(ssh.ConnMetadata) string { return text }
	}
	var seed [32]byte
	copy(seed[:], *instance)
	host, err := ssh.NewSignerFromSigner(ed25519.NewKeyFromSeed(seed[:]))
	ts.Check(err)
	cfg.AddHostKey(host)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("ADDR", l.Addr().String())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if *hang != "" {
					os.WriteFile(ts.MkAbs(*hang), nil, 0o600)
					io.Copy(io.Discard, c)
					return
				}
				if conn, chans, reqs, err := ssh.NewServerConn(c, cfg); err == nil {
					go ssh.DiscardRequests(reqs)
					for ch := range chans {
						ch.Reject(ssh.Prohibited, "")
					}
					conn.Wait()
				}
			}()
		}
	}()
}

// await waits until there is a file: await FILE.
func await(ts *testscript.TestScript, neg bool, args []string) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("there is no file %q", args[0])
}

// sshAgent starts an agent that has keys: ssh-agent FILE...
func sshAgent(ts *testscript.TestScript, neg bool, args []string) {
	ring := agent.NewKeyring()
	for _, name := range args {
		key, err := ssh.ParseRawPrivateKey([]byte(ts.ReadFile(name)))
		ts.Check(err)
		ts.Check(ring.Add(agent.AddedKey{PrivateKey: key}))
	}
	// The path of a socket is short, and that of a script is not always.
	dir, err := os.MkdirTemp("", "agent")
	ts.Check(err)
	l, err := net.Listen("unix", dir+"/s")
	ts.Check(err)
	ts.Defer(func() { l.Close(); os.RemoveAll(dir) })
	ts.Setenv("SSH_AUTH_SOCK", dir+"/s")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); agent.ServeAgent(ring, c) }()
		}
	}()
}
