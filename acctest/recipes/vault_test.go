// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package recipes_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
)

// A vault stands for Vault's engine KV, version 2, at the path secret, as far as
// its documentation tells: "Create/Update secret" of its HTTP API, and for policies
// that "create" is wanted where there is no such secret and "update" where there is.
// Vault itself cannot be had as a Go module.
type vault struct {
	tokens map[string]vaultPolicy

	mu      sync.Mutex
	secrets map[string][]map[string]string // versions, by the path
}

type vaultPolicy struct {
	prefix       string
	capabilities []string
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	answer := func(code int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(body)
	}
	refuse := func(code int, reason string) { answer(code, map[string][]string{"errors": {reason}}) }

	name, ok := strings.CutPrefix(r.URL.Path, "/v1/secret/data/")
	wanted := "create"
	if len(v.secrets[name]) > 0 {
		wanted = "update"
	}
	p, known := v.tokens[r.Header.Get("X-Vault-Token")]
	if !known || !strings.HasPrefix("secret/data/"+name, p.prefix) || !strings.Contains(strings.Join(p.capabilities, " "), wanted) {
		refuse(http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	if !ok || r.Method != http.MethodPost && r.Method != http.MethodPut {
		refuse(http.StatusMethodNotAllowed, "unsupported operation")
		return
	}
	var req struct {
		Options struct{ CAS *int }
		Data    map[string]string
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		refuse(http.StatusBadRequest, "failed to parse JSON input")
		return
	}
	if req.Data == nil {
		refuse(http.StatusBadRequest, "no data provided")
		return
	}
	if req.Options.CAS != nil && *req.Options.CAS != len(v.secrets[name]) {
		refuse(http.StatusBadRequest, "check-and-set parameter did not match the current version")
		return
	}
	v.secrets[name] = append(v.secrets[name], req.Data)
	answer(http.StatusOK, map[string]any{"data": map[string]any{"version": len(v.secrets[name])}})
}

// get is "vault kv get -field=FIELD secret/PATH".
func (v *vault) get(path, field string) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	versions := v.secrets[path]
	if len(versions) == 0 {
		return nil
	}
	return []byte(versions[len(versions)-1][field])
}

func startVault(t *testing.T, s *site) {
	m := regexp.MustCompile(`^path "(.*/)web-1/\*" \{\n  capabilities = \["(\w+)"\]\n\}\n$`).FindStringSubmatch(fence(t, s.heading, "hcl"))
	if m == nil {
		t.Fatal("the page's policy is another")
	}
	v := &vault{tokens: map[string]vaultPolicy{}, secrets: map[string][]map[string]string{}}
	for _, name := range machines {
		v.tokens["token-of-"+name] = vaultPolicy{m[1] + name + "/", []string{m[2]}}
	}
	v.tokens["root"] = vaultPolicy{"", []string{"create", "update"}}
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(v)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	s.wire.to(srv.Listener.Addr().String())
	s.fill = func(m *machine) []string {
		return []string{"vault.example:8200", s.wire.addr, `X-Vault-Token: "..."`, `X-Vault-Token: "token-of-` + m.name + `"`}
	}
	s.got = func(m *machine) []byte { return v.get("cards/"+m.name+"/"+m.id, "envelope") }
}

// TestVaultCheckAndSet: a token that may change secrets is held by cas: 0.
func TestVaultCheckAndSet(t *testing.T) {
	s := newSite(t, "Vault")
	startVault(t, s)
	s.fill = func(*machine) []string {
		return []string{"vault.example:8200", s.wire.addr, `X-Vault-Token: "..."`, `X-Vault-Token: "root"`}
	}
	m := s.machine("web-1")
	if got := m.pass(); got != deliver.Delivered {
		t.Fatalf("%s: %s", got, m.lastError())
	}
	first := m.stored()
	m.forget()
	m.reseal()
	if got := m.pass(); got != deliver.Failed || !strings.Contains(m.lastError(), "answer 400") {
		t.Errorf("another one under its name: %s: %s", got, m.lastError())
	}
	if !bytes.Equal(m.stored(), first) {
		t.Error("the first envelope was overwritten")
	}
}
