// Package contract holds the Terraform modules to what the program is: its tests
// read what the examples make and compare it with the code, so that neither can
// change alone. It has no code of its own.
//
// What the examples make comes from terraform test, whose mocked provider needs no
// account (terraform/check.sh states); the tables come from their plans as well
// (terraform/check.sh plans), where a stand-in for the provider is named. What the
// program needs is read where it is written: the tables in state/dynamo, the names
// of settings in the tables of settings, and the calls of AWS in the source of the
// adapters. A call that the role of its program does not allow is a fault, and so
// is a permission that no call needs.
package contract
