"""What tests of several processes stand on."""
