module github.com/holdfast-wa/holdfast/infra/image/imagetest

go 1.26.0
