package main

import (
	"regexp"
	"strings"
	"testing"

	"rsc.io/qr"
)

const qrSample = "https://wa.me/settings/linked_devices#2@AbCdEfGhIjKlMnOpQrStUvWxYz0123456789,AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfG=,x,y,1"

var escape = regexp.MustCompile("\x1b\\[[0-9;]*m")

// modules reads a drawing back: true where it is dark. In colour a block is
// dark, without it is light.
func modules(drawing string, colour bool) [][]bool {
	var rows [][]bool
	for _, line := range strings.Split(strings.TrimSuffix(escape.ReplaceAllString(drawing, ""), "\n"), "\n") {
		var top, bottom []bool
		for _, r := range line {
			top = append(top, (r == '█' || r == '▀') == colour)
			bottom = append(bottom, (r == '█' || r == '▄') == colour)
		}
		rows = append(rows, top, bottom)
	}
	return rows
}

func TestTheDrawingIsTheCode(t *testing.T) {
	code, err := qr.Encode(qrSample, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	for _, colour := range []bool{true, false} {
		drawing, err := drawQR(qrSample, colour)
		if err != nil {
			t.Fatal(err)
		}
		rows := modules(drawing, colour)
		side := code.Size + 2*quietZone
		for y := range side {
			if len(rows[y]) != side {
				t.Fatalf("row %d has %d modules, want %d", y, len(rows[y]), side)
			}
			for x := range side {
				if want := code.Black(x-quietZone, y-quietZone); rows[y][x] != want {
					t.Fatalf("colour %v: module %d,%d is dark: %v, want %v", colour, x, y, rows[y][x], want)
				}
			}
		}
		if got := qrWidth(drawing); got != side {
			t.Errorf("width %d, want %d", got, side)
		}
		if has := strings.Contains(drawing, "38;5;16;48;5;231"); has != colour {
			t.Errorf("colours are set: %v, want %v", has, colour)
		}
	}
}

func TestATextThatIsTooLong(t *testing.T) {
	if _, err := drawQR(strings.Repeat("x", 5000), true); err == nil || strings.Contains(err.Error(), "xxx") {
		t.Errorf("got %v", err)
	}
}
