package wasim

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/types"
)

// The bounds of what is kept of media.
const (
	maxMediaItem  = 64 << 20 // bytes
	maxMediaCount = 1000
)

// mediaConn tells a client where to upload and download: here. The library
// dials media over https; whoever redirects the websocket redirects it too.
func (s *Server) mediaConn(n *waBinary.Node) waBinary.Node {
	return waBinary.Node{Tag: "iq", Attrs: waBinary.Attrs{"from": types.ServerJID, "type": "result", "id": n.Attrs["id"]}, Content: []waBinary.Node{{
		Tag: "media_conn", Attrs: waBinary.Attrs{"auth": "simulated", "ttl": 3600, "auth_ttl": 3600, "max_buckets": 12},
		Content: []waBinary.Node{{Tag: "host", Attrs: waBinary.Attrs{"hostname": s.address}}},
	}}}
}

// serveMedia keeps what is uploaded, encrypted as it is, and gives it back.
// What is deleted is gone.
func (s *Server) serveMedia(w http.ResponseWriter, r *http.Request) {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	if len(parts) != 3 || parts[0] != "mms" && parts[0] != "newsletter" || parts[2] == "" {
		http.NotFound(w, r)
		return
	}
	key := parts[2]
	switch r.Method {
	case http.MethodPost:
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMediaItem))
		if err != nil {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		s.mu.Lock()
		if len(s.media) >= maxMediaCount {
			for old := range s.media {
				delete(s.media, old)
				break
			}
		}
		s.media[key] = data
		s.uploads++
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{
			"url":         "https://" + s.address + "/mms/" + parts[1] + "/" + key + "?simulated=1",
			"direct_path": "/mms/" + parts[1] + "/" + key + "?simulated=1",
			"handle":      base64.RawURLEncoding.EncodeToString([]byte(key)),
			"object_id":   key,
		})
	case http.MethodGet:
		s.mu.Lock()
		data, ok := s.media[key]
		s.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	case http.MethodDelete:
		s.mu.Lock()
		delete(s.media, key)
		s.mu.Unlock()
	default:
		w.Header().Set("Allow", "GET, POST, DELETE")
		http.Error(w, "method", http.StatusMethodNotAllowed)
	}
}
