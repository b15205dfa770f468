package chaos

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Secret is a text that must lie nowhere in the clear, and what it is.
type Secret struct{ Text, What string }

// scanner looks for secrets in whatever it is shown.
type scanner struct {
	secrets []Secret
	leaks   []Leak
	seen    map[Leak]bool
	items   int
	bytes   int
}

// encoded finds what may be text in base64: bytes within JSON are written so.
var encoded = regexp.MustCompile(`[A-Za-z0-9+/_-]{16,}={0,2}`)

// look searches a value, and what is in it in base64, twice deep.
func (s *scanner) look(where string, b []byte) {
	s.bytes += len(b)
	s.search(where, b, 2)
}

func (s *scanner) search(where string, b []byte, deep int) {
	low := bytes.ToLower(b)
	for _, secret := range s.secrets {
		if bytes.Contains(low, []byte(strings.ToLower(secret.Text))) {
			leak := Leak{where, secret.What}
			if s.seen == nil {
				s.seen = map[Leak]bool{}
			}
			if !s.seen[leak] {
				s.seen[leak] = true
				s.leaks = append(s.leaks, leak)
			}
		}
	}
	if deep == 0 {
		return
	}
	for _, text := range encoded.FindAll(b, -1) {
		text = bytes.TrimRight(text, "=")
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if plain, err := e.DecodeString(string(text)); err == nil {
				s.search(where, plain, deep-1)
			}
		}
	}
}

// attribute searches a DynamoDB attribute of any type.
func (s *scanner) attribute(where string, v types.AttributeValue) {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		s.look(where, []byte(v.Value))
	case *types.AttributeValueMemberN:
		s.look(where, []byte(v.Value))
	case *types.AttributeValueMemberB:
		s.look(where, v.Value)
	case *types.AttributeValueMemberSS:
		for _, x := range v.Value {
			s.look(where, []byte(x))
		}
	case *types.AttributeValueMemberNS:
		for _, x := range v.Value {
			s.look(where, []byte(x))
		}
	case *types.AttributeValueMemberBS:
		for _, x := range v.Value {
			s.look(where, x)
		}
	case *types.AttributeValueMemberL:
		for _, x := range v.Value {
			s.attribute(where, x)
		}
	case *types.AttributeValueMemberM:
		for k, x := range v.Value {
			s.look(where, []byte(k))
			s.attribute(where, x)
		}
	}
}

// place is where the stand-ins are, from the environment of a line.
type place map[string]string

func (p place) config(ctx context.Context) (aws.Config, error) {
	ca, err := os.ReadFile(p["AWS_CA_BUNDLE"])
	if err != nil {
		return aws.Config{}, err
	}
	return config.LoadDefaultConfig(ctx, config.WithRegion(p["AWS_REGION"]), config.WithCustomCABundle(bytes.NewReader(ca)),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(p["AWS_ACCESS_KEY_ID"], p["AWS_SECRET_ACCESS_KEY"], "")))
}

// tables searches every item of every table, as it is stored.
func (s *scanner) tables(ctx context.Context, p place) error {
	cfg, err := p.config(ctx)
	if err != nil {
		return err
	}
	client := dynamodb.NewFromConfig(cfg, func(o *dynamodb.Options) { o.BaseEndpoint = aws.String(p["HOLDFAST_AWS_ENDPOINT_DYNAMODB"]) })
	list, err := client.ListTables(ctx, &dynamodb.ListTablesInput{})
	if err != nil {
		return err
	}
	if len(list.TableNames) < 2 {
		return fmt.Errorf("there are %d tables; there must be two", len(list.TableNames))
	}
	for _, table := range list.TableNames {
		pages := dynamodb.NewScanPaginator(client, &dynamodb.ScanInput{TableName: &table, ConsistentRead: aws.Bool(true)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			for _, item := range page.Items {
				s.items++
				s.item(table, item)
			}
		}
	}
	return nil
}

// item searches one item; the sort key's first part tells what it is.
func (s *scanner) item(table string, item map[string]types.AttributeValue) {
	kind := "?"
	if sk, ok := item["sk"].(*types.AttributeValueMemberS); ok {
		kind, _, _ = strings.Cut(sk.Value, "#")
	}
	for name, v := range item {
		s.attribute(fmt.Sprintf("table %s, a %s item, attribute %s", table, kind, name), v)
	}
}

// objects searches every version of every object of the bucket, and their names.
func (s *scanner) objects(ctx context.Context, p place) error {
	cfg, err := p.config(ctx)
	if err != nil {
		return err
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.BaseEndpoint, o.UsePathStyle = aws.String(p["HOLDFAST_AWS_ENDPOINT_S3"]), true
	})
	bucket, _, _ := strings.Cut(strings.TrimPrefix(p["HOLDFAST_VAULT"], "s3://"), "/")
	pages := s3.NewListObjectVersionsPaginator(client, &s3.ListObjectVersionsInput{Bucket: &bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, v := range page.Versions {
			s.items++
			s.look("the name of an object", []byte(*v.Key))
			o, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: v.Key, VersionId: v.VersionId})
			if err != nil {
				return fmt.Errorf("object: %w", err)
			}
			b, err := io.ReadAll(o.Body)
			_ = o.Body.Close()
			if err != nil {
				return err
			}
			s.look("an object", b)
		}
	}
	return nil
}

// files searches all files below a folder.
func (s *scanner) files(dir string) error {
	root := os.DirFS(dir)
	return fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		s.items++
		s.look("file "+path, b)
		return nil
	})
}
