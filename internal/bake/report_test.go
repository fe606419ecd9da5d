// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The report's fields are those of docs/report.md.
func TestReportIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/report.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for line := range strings.Lines(string(b)) {
		if cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok && strings.HasPrefix(line, "| `") {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
				documented = append(documented, m[1])
			}
		}
	}
	fields := jsonFields(reflect.TypeFor[Report](), "")
	for _, f := range fields {
		if !slices.Contains(documented, f) {
			t.Errorf("%s is not documented", f)
		}
	}
	for _, d := range documented {
		if !slices.Contains(fields, d) {
			t.Errorf("%s is documented, and no field", d)
		}
	}
	if len(fields) < 15 {
		t.Errorf("only %d fields", len(fields))
	}
}

// jsonFields lists the fields of a struct by their paths. A struct without a
// row of its own is described by its fields.
func jsonFields(of reflect.Type, path string) []string {
	var fields []string
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		name = path + name
		inner := f.Type
		optional := inner.Kind() == reflect.Pointer
		if optional {
			inner = inner.Elem()
		}
		list := inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct
		if list {
			inner = inner.Elem()
			name += "[]"
		}
		if inner.Kind() != reflect.Struct {
			fields = append(fields, name)
			continue
		}
		if optional {
			fields = append(fields, name)
		}
		fields = append(fields, jsonFields(inner, name+".")...)
	}
	return fields
}
