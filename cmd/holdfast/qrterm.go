package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
	"rsc.io/qr"
)

// quietZone is the light frame that a QR code needs, in modules (ISO 18004).
const quietZone = 4

// drawQR draws a text as a QR code in half blocks, two modules a character. In
// colour, dark and light are fixed, so it can be scanned whatever the
// terminal's background is. Without, light modules are drawn and dark ones left
// out, which is right on a dark background.
func drawQR(text string, colour bool) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", fmt.Errorf("drawing a QR code of %d bytes: %w", len(text), err)
	}
	// Of the 256 colours 16 and 231 are black and white in every theme.
	const blackOnWhite, reset = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
	var b strings.Builder
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		if colour {
			b.WriteString(blackOnWhite)
		}
		for x := -quietZone; x < code.Size+quietZone; x++ {
			top, bottom := code.Black(x, y), code.Black(x, y+1)
			if !colour {
				// The last row has nothing below it.
				top, bottom = !top, !bottom && y+1 < code.Size+quietZone
			}
			switch {
			case top && bottom:
				b.WriteRune('█')
			case top:
				b.WriteRune('▀')
			case bottom:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		if colour {
			b.WriteString(reset)
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// qrWidth is how many columns the drawing of a text takes.
func qrWidth(drawing string) int {
	line, _, _ := strings.Cut(drawing, "\n")
	n := 0
	for _, r := range line {
		if strings.ContainsRune("█▀▄ ", r) {
			n++
		}
	}
	return n
}

// tooNarrow says by how much the terminal that out is would wrap the drawing;
// empty if it fits or out is no terminal.
func tooNarrow(out any, drawing string) string {
	f, ok := out.(*os.File)
	if !ok {
		return ""
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if need := qrWidth(drawing); err == nil && width < need {
		return fmt.Sprintf("the window has %d columns and the code needs %d; widen it, or write a file with --png FILE", width, need)
	}
	return ""
}
