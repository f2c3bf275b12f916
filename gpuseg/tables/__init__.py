"""The door: files and warehouses, in and out. Only this package knows systems."""
