package adminapi

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// repeated finds a property that an object of a JSON text has twice, as a field
// such as body.settings. What checks a body and what reads it would each take
// another one of them. Empty where there is none, or where the text is not JSON,
// which somebody else says.
func repeated(body []byte) string {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	type level struct {
		where string
		names map[string]struct{} // nil: a list
		name  string              // whose value comes next
		named bool
		next  int // of a list
	}
	var open []level
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		if end, ok := token.(json.Delim); ok && (end == '}' || end == ']') {
			open = open[:len(open)-1]
			continue
		}
		where := "body"
		if n := len(open); n > 0 {
			l := &open[n-1]
			switch {
			case l.names == nil:
				where = l.where + "[" + strconv.Itoa(l.next) + "]"
				l.next++
			case !l.named:
				l.name, l.named = token.(string), true // the decoder allows nothing else here
				if _, twice := l.names[l.name]; twice {
					return l.where + "." + l.name
				}
				l.names[l.name] = struct{}{}
				continue
			default:
				where, l.named = l.where+"."+l.name, false
			}
		}
		switch token {
		case json.Delim('{'):
			open = append(open, level{where: where, names: map[string]struct{}{}})
		case json.Delim('['):
			open = append(open, level{where: where})
		}
	}
}
