// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

const (
	receiveTime = 5 * time.Second
	mostOfLoad  = 20000 // envelopes: the limit of those who share a credential is 65536 at once
	receiveKey  = "0123456789abcdef0123456789abcdef"
	minReceived = 1000 // a second, of many clients
	manyClients = 256
)

// printReceived measures how many envelopes a second "totpctl receive" takes
// over HTTPS on loopback, each of them durable before it is confirmed. The
// directory is on the disk of the temporary files: a file system in memory would
// say nothing.
func printReceived(dir string) error {
	p, err := startReceiver(dir)
	if err != nil {
		return err
	}
	defer p.stop()
	fmt.Printf("\n%-28s %12s %12s %12s %12s\n", "totpctl receive --listen", "clients", "envelopes", "a second", "limit")
	for _, clients := range []int{1, 16, manyClients} {
		n, took, err := p.load(clients)
		if err != nil {
			return err
		}
		limit, verdict := "", ""
		if rate := float64(n) / took.Seconds(); clients == manyClients {
			limit, verdict = fmt.Sprint(minReceived), met(rate >= minReceived)
		}
		fmt.Printf("%-28s %12d %12d %12.0f %12s %s\n", "HTTPS, HMAC, 3 KB, durable", clients, n, float64(n)/took.Seconds(), limit, verdict)
	}
	return nil
}

type receiver struct {
	cmd    *exec.Cmd
	url    string
	client http.Client
	body   []byte
}

func startReceiver(dir string) (*receiver, error) {
	program := filepath.Join(dir, "totpctl")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", program, "./cmd/totpctl").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	cert, key, credentials := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "credentials")
	roots, err := certificate(cert, key)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(credentials, []byte("* hmac-sha256 "+receiveKey+"\n"), 0o600); err != nil {
		return nil, err
	}
	p := &receiver{cmd: exec.Command(program, "receive", "--listen", "127.0.0.1:0", "--cert", cert, "--key", key,
		"--credentials", credentials, "--dir", filepath.Join(dir, "received"))}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(stderr)
	first, err := lines.ReadString('\n')
	_, url, ok := strings.Cut(strings.TrimSpace(first), "listening on ")
	if err != nil || !ok {
		p.stop()
		return nil, fmt.Errorf("totpctl receive: %q, %w", first, err)
	}
	go io.Copy(io.Discard, lines)
	p.url = url
	p.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 1000}

	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, id.Recipient())
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(make([]byte, 1536)); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	p.body = b.Bytes()
	return p, nil
}

func (p *receiver) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.cmd.Wait()
}

// load has so many clients deliver one envelope after the other.
func (p *receiver) load(clients int) (n int64, took time.Duration, err error) {
	var wg sync.WaitGroup
	var count atomic.Int64
	errs := make([]error, clients)
	start := time.Now()
	for i := range clients {
		wg.Go(func() {
			for errs[i] == nil && time.Since(start) < receiveTime && count.Load() < mostOfLoad {
				if errs[i] = p.deliver(); errs[i] == nil {
					count.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return count.Load(), time.Since(start), errors.Join(errs...)
}

func (p *receiver) deliver() error {
	req, err := http.NewRequest(http.MethodPut, p.url+"/"+strings.ToLower(rand.Text()), bytes.NewReader(p.body))
	if err != nil {
		return err
	}
	req.Header.Set(frame.SignatureHeader, frame.Sign([]byte(receiveKey), req.Method, req.URL.RequestURI(), "", p.body))
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("totpctl receive: %s: %q", resp.Status, answer)
	}
	return err
}

// certificate makes one for 127.0.0.1.
func certificate(cert, key string) (*x509.CertPool, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	spec := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, spec, spec, private.Public(), private)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots.AppendCertsFromPEM(text)
	return roots, errors.Join(
		os.WriteFile(cert, text, 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}
