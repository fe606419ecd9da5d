// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMarshal(t *testing.T) {
	for _, tt := range []struct {
		name  string
		layer Layer
		p     *Policy
	}{
		{"least", Image, &Policy{Version: 1}},
		{"full", Image, fullPolicy()},
		{"defaults", Image, new(Policy).WithDefaults()},
		{"words", Image, &Policy{Version: 1, Issuer: "No", Users: []User{{Name: "no"}, {Name: "y"}, {Name: "on"}, {Name: "null"}, {Name: "true"}, {Name: "_"}}}},
		{"quotes", Image, &Policy{Version: 1, Issuer: `"It's" # 日本`}},
		{"number", Image, &Policy{Version: 1, Issuer: "0777", Channels: []Channel{{Type: "virtio", Port: "1e3"}}}},
		{"instance", Instance, &Policy{Version: 1, Token: "1234567890123456789012"[:21] + "A", Users: users(ssh1 + " alice: #1")}},
		{"hybrid", Image, &Policy{Version: 1, Users: users(hybrid1, hybrid2)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.p.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", tt.name+".yaml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			p, err := Parse(tt.layer, "", got)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(p, tt.p) {
				t.Errorf("read back as %#v", plainPolicy(*p))
			}
		})
	}
}

// A policy that lost its end is seen as such wherever it was cut.
func TestMarshalCut(t *testing.T) {
	text, err := fullPolicy().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	last := strings.LastIndex(string(text), lastLine)
	for i := range last + len(lastLine) {
		_, err := Parse(Image, "", text[:i])
		if i < len(firstLine) {
			if !errors.Is(err, ErrEmpty) && !errors.Is(err, ErrCut) {
				t.Fatalf("cut to %d bytes: %v", i, err)
			}
		} else if !errors.Is(err, ErrCut) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
}

func TestMarshalTooLarge(t *testing.T) {
	p := &Policy{Version: 1}
	for i := range 3000 {
		p.Users = append(p.Users, User{Name: fmt.Sprintf("u%030d", i)})
	}
	if _, err := p.Marshal(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}
