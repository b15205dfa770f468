package main

// Prices of us-east-1 in US dollars without tax, on demand, as AWS publishes them
// on its pages of prices; last compared in March 2026. A free tier is counted
// where it is for ever and large enough to be seen.
const pricesOf = "us-east-1, March 2026"

const (
	// https://aws.amazon.com/fargate/pricing/, Linux on ARM
	fargateCPU = 0.03238 // a vCPU-hour
	fargateGB  = 0.00356 // a GB-hour of memory

	// https://aws.amazon.com/vpc/pricing/
	publicIPv4 = 0.005 // an hour of an address
	natHour    = 0.045 // an hour of a gateway
	natGB      = 0.045 // a GB that it passes on

	// https://aws.amazon.com/dynamodb/pricing/on-demand/, Standard table class
	writeUnit   = 0.625e-6
	readUnit    = 0.125e-6
	tableGB     = 0.25 // a GB-month
	tableFreeGB = 25

	// https://aws.amazon.com/s3/pricing/, Standard
	s3Put = 5e-6 // also LIST
	s3Get = 0.4e-6

	// https://aws.amazon.com/kms/pricing/
	kmsKey     = 1.0 // a month
	kmsRequest = 3e-6

	// https://aws.amazon.com/cloudwatch/pricing/
	logGB = 0.50 // taken in

	// https://aws.amazon.com/api-gateway/pricing/, HTTP API, and
	// https://aws.amazon.com/lambda/pricing/, ARM
	apiRequest     = 1e-6
	lambdaRequest  = 0.2e-6
	lambdaGBSecond = 13.3334e-6

	// https://aws.amazon.com/ec2/pricing/on-demand/, data transfer to the internet
	egressGB     = 0.09
	egressFreeGB = 100
)
