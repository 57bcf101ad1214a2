"""What the arguments of commands name: ids, files, tables, prices."""
