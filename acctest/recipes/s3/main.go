// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// S3 makes a bucket, and signs a URL by which one object can be written there
// once. Its module pins the SDK that signs and the server that tests ask.
//
//	s3 ENDPOINT BUCKET KEY...
//
// It prints a line for each KEY. The credentials are in AWS_ACCESS_KEY_ID and
// AWS_SECRET_ACCESS_KEY, and the certificate of a private CA is in the file that
// AWS_CA_BUNDLE names.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: s3 ENDPOINT BUCKET KEY...")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintf(os.Stderr, "s3: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoint, bucket string, keys []string) error {
	settings, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"))
	if err != nil {
		return err
	}
	client := s3.NewFromConfig(settings, func(o *s3.Options) {
		o.BaseEndpoint, o.UsePathStyle = &endpoint, true
	})
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		return errors.New("no bucket: " + err.Error())
	}
	for _, key := range keys {
		url, err := writeOnce(ctx, client, bucket, key)
		if err != nil {
			return err
		}
		fmt.Println(url)
	}
	return nil
}

// writeOnce signs a URL that takes one object, for a day. The condition is part
// of what is signed: without the header If-None-Match: * nothing is taken.
func writeOnce(ctx context.Context, client *s3.Client, bucket, key string) (string, error) {
	req, err := s3.NewPresignClient(client).PresignPutObject(ctx, &s3.PutObjectInput{
		Bucket:      &bucket,
		Key:         &key,
		IfNoneMatch: aws.String("*"),
	}, s3.WithPresignExpires(24*time.Hour))
	if err != nil {
		return "", err
	}
	return req.URL, nil
}
