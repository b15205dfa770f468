package adminapi

import "testing"

func TestTextsOfThePageAreEscaped(t *testing.T) {
	p := new(page)
	p.shape(docShape{"A&B", []docField{{Name: `<x y="z">`, Type: "list of string", About: "100 %", Required: true}}})
	const want = `<details id="schema-A&amp;B"><summary><code>A&amp;B</code></summary><div><table>
<tr><td><code>&lt;x y=&#34;z&#34;&gt;</code> *</td><td>list of string</td><td>100 %</td></tr>
</table></div></details>
`
	if p.String() != want {
		t.Errorf("%s\nwanted\n%s", p, want)
	}
}
