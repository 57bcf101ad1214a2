"""Tests of durable runs, one file for each module."""
