"""What every stage needs: errors, labels, parameters, outputs, devices and processes."""
