// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// evil are texts by which somebody would steer a terminal: clear it, set its title,
// have it answer, turn the order of what is shown, or hide a part of that.
var evil = []string{"\x1b[2J\x1b]0;owned\x07", "\x9b6n", "a\rb\b", "\u202ecod.exe", "\u200b\u2066hidden"}

// TestForgedCards: whatever stands in a field of a card that somebody has sealed to
// an owner, no terminal acts upon what is printed of it.
func TestForgedCards(t *testing.T) {
	d := newDesk(t, seal.GenerateX25519)
	to, err := seal.ParseRecipient(d.recipient)
	check(t, err)
	text, err := d.card.Text()
	check(t, err)
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	var fields map[string]any
	check(t, json.Unmarshal(lines[len(lines)-1], &fields))
	for i, name := range slices.Sorted(maps.Keys(fields)) {
		for j, bad := range evil {
			forged := maps.Clone(fields)
			switch v := fields[name].(type) {
			case []any:
				forged[name] = []any{v[0], bad}
			case string:
				forged[name] = v + bad
			default:
				forged[name] = bad
			}
			line, err := json.Marshal(forged)
			check(t, err)
			sealed, err := seal.Seal(append([]byte("ENROLLMENT CARD "+bad+"\n"), line...), []seal.Recipient{to})
			check(t, err)
			envelope := d.file(t, "forged.age", sealed)
			options := [][]string{nil, {"--color=always"}, {"--json"}}[(i+j)%3]
			out := harmlessRun(t, append([]string{"open", "-i", d.identity, envelope}, options...)...)
			if strings.Contains(out, "LIGHT TEXT") || strings.Contains(out, `"secret"`) {
				t.Errorf("the card is shown, with %q as %s", forged[name], name)
			}
		}
	}
}

// TestEvilInputs: nor upon names of files and users, blocks of a log, keys and
// tickets.
func TestEvilInputs(t *testing.T) {
	d := newDesk(t, seal.GenerateX25519)
	to, err := seal.ParseRecipient(d.recipient)
	check(t, err)
	sealed, err := seal.Seal([]byte("no card"), []seal.Recipient{to})
	check(t, err)
	block, err := console.Encode(d.card.ID, d.card.User, sealed)
	check(t, err)
	for _, bad := range evil {
		log := d.file(t, "console.log", bytes.ReplaceAll(block, []byte(" alice "), []byte(" al"+bad+"ice ")))
		for _, args := range [][]string{
			{"open", "-i", d.identity, bad},
			{"open", "-i", bad, d.envelope},
			{"open", "-i", d.identity, "--user", bad, d.envelope},
			{"open", "-i", d.identity, "--id", bad, d.envelope},
			{"open", "-i", d.identity, "--color", bad, d.envelope},
			{"open", "-i", d.identity, log},
			{"open", "-i", d.file(t, "bad.txt", []byte("age1"+bad+"\n")), d.envelope},
			{"open", "-i", d.identity, "--ticket", d.file(t, "bad.ticket", []byte(`{"v": "`+bad+`"}`)), d.envelope},
			{"open", "-i", d.identity, "--known-hosts", "-", "--host", bad, d.envelope},
			{"fetch", "-i", d.identity, bad},
			{"verify", bad},
			{"user-data", "--user", bad, "-R", d.recipient},
			{"user-data", "--user", "alice", "-R", bad},
			{"user-data", "--policy", d.file(t, "bad.yaml", []byte("version: 1\nissuer: \""+bad+"\"\n"+bad+": 1\n"))},
			{"receive", "--listen", bad, "--dir", filepath.Join(t.TempDir(), bad)},
			{bad},
			{"open", "--" + bad},
		} {
			harmlessRun(t, args...)
		}
	}
}

// harmlessRun runs totpctl, and returns what it has printed.
func harmlessRun(t *testing.T, args ...string) string {
	t.Helper()
	out, _ := exec.CommandContext(t.Context(), "totpctl", args...).CombinedOutput()
	text := string(out)
	// The colours of the QR code are no concern of a card's text.
	for _, colour := range []string{"\x1b[38;5;16;48;5;231m", "\x1b[0m"} {
		text = strings.ReplaceAll(text, colour, "")
	}
	if len(out) == 0 {
		t.Errorf("%q: printed nothing", args)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("%q: printed %.200q", args, text[i:])
	}
	return text
}
