"""What tests are built from: servers, a faulty network. Nothing here stands in for code of zkside."""
