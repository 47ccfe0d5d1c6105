"""What zk/port.py promises, held against both backends: ZooKeeper in process, and a real one."""
