// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documented reads the first columns of the tables of docs/verify.md, by heading.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/verify.md")
	if err != nil {
		t.Fatal(err)
	}
	cell := regexp.MustCompile("^\\| `([^`]+)` \\|")
	names := map[string][]string{}
	heading := ""
	for line := range strings.Lines(string(page)) {
		if h, ok := strings.CutPrefix(line, "### "); ok {
			heading = strings.TrimSpace(h)
		}
		if m := cell.FindStringSubmatch(line); m != nil && heading != "" {
			names[heading] = append(names[heading], m[1])
		}
	}
	return names
}

// fields are the names of a struct in JSON; those that may be missing are in
// optional.
func fields(v any) (names, optional []string) {
	for f := range reflect.TypeOf(v).Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
		if options == "omitempty" {
			optional = append(optional, name)
		}
	}
	return names, optional
}

// The page says what the report is, field by field and value by value.
func TestTheDocumentedSchema(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/verify.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := documented(t)
	for heading, v := range map[string]any{"Report": Report{}, "Host key": HostKey{}, "Algorithms": Algorithms{}, "Algorithm": Algorithm{}, "Row": Row{}} {
		names, optional := fields(v)
		if !slices.Equal(docs[heading], names) {
			t.Errorf("%s: documented %q, in the code %q", heading, docs[heading], names)
		}
		_, section, _ := strings.Cut(string(page), "\n### "+heading+"\n")
		section, _, _ = strings.Cut(section, "\n### ")
		for line := range strings.Lines(section) {
			for _, name := range names {
				if !strings.HasPrefix(line, "| `"+name+"` |") {
					continue
				}
				if said := strings.Contains(line, "missing"); said != slices.Contains(optional, name) {
					t.Errorf("%s, %s: documented as optional: %v", heading, name, said)
				}
			}
		}
	}
	var ids []string
	for _, row := range attempts {
		ids = append(ids, row.ID)
	}
	for heading, want := range map[string][]string{
		"Results":  {string(ResultOK), string(ResultWrong), string(ResultUnreachable), string(ResultFailed)},
		"Statuses": {string(StatusOK), string(StatusWrong), string(StatusNotTried)},
		"Classes":  {string(Weak), string(OK), string(PostQuantum), string(Unknown)},
		"Row IDs":  ids,
	} {
		if !slices.Equal(docs[heading], want) {
			t.Errorf("%s: documented %q, in the code %q", heading, docs[heading], want)
		}
	}
	// The table on the page is one that the code prints.
	for _, row := range attempts {
		if !strings.Contains(string(page), row.Attempt+"  ") || !strings.Contains(string(page), row.Expected) {
			t.Errorf("%s: the example has not %q and %q", row.ID, row.Attempt, row.Expected)
		}
	}
}
